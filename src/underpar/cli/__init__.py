"""The command line: parsing, and one call per command. Heavy imports live inside the commands."""
