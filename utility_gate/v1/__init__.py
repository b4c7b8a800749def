"""Generated from proto/utility_gate/v1 by `make proto`; do not edit."""
