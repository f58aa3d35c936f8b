"""Runs in several processes: which process this is, and how they start, communicate and end."""
