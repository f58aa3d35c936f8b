"""The configuration: what it may contain, how it is composed and built, and its error messages."""
