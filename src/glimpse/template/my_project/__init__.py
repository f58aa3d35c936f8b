"""The networks and datasets of this project."""
