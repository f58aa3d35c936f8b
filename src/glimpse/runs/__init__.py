"""Read run folders for the `glimpse` command."""
