"""What a gate in front of a pipeline is worth: measured (`job`), computed (`arithmetic`), told
(`page`, `figure`)."""
