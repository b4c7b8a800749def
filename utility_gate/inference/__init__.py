"""Generated from proto/utility_gate/inference by `make proto`; do not edit.

Its messages have the names that tritonclient's and kserve's have, and one process cannot hold both:
only the server imports it, never the client.
"""
