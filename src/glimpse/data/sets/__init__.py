"""The datasets. Each module states the facts of one dataset and reads its format."""
