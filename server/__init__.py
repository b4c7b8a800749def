"""The gate as a service: bytes in, verdict out."""
