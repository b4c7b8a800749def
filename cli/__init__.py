"""`utility-gate`: where everything is put together; one file a subcommand."""
