"""What happens beside training: checkpoints, progress, the record of the run, pictures."""
