"""Generated from proto/pipelines/v1 by `make proto`; do not edit."""
