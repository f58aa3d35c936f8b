"""The `glimpse` command."""
