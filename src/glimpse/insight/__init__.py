"""Functions on predictions and networks: what a model learned, and where it fails."""
