"""The configuration: what may stand in it, how it is composed and built, and what its errors say."""
