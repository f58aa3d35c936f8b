"""Callbacks around training: checkpoints, progress, the record of the run, pictures."""
