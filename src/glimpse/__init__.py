"""glimpse: image-classification experiments, any model on any dataset from one command."""

__version__ = "0.1.0"
