"""What stands behind the gate: two trained pipelines, and what they share."""
