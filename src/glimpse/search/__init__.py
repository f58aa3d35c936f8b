"""`hydra/sweeper=search`: the axes of a search, its next trial, and when a trial stops early."""
