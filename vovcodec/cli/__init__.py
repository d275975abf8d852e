"""The `vov` command: one file per subcommand, nothing here that the codec needs. No module here imports torch."""
