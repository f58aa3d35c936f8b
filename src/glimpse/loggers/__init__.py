"""The loggers of a run, `logger=[tensorboard,wandb]`: what they receive, and where they write."""
