"""What a run tells its loggers, `logger=[tensorboard,wandb]`, and where they write."""
