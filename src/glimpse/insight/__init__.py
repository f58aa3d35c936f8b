"""Functions on predictions and networks that show what a model has learned and where it fails."""
