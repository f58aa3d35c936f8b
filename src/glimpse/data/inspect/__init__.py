"""Inspection of a dataset before training: `glimpse data info`, `show` and `check`."""
