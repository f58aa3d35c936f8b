"""A run in several processes: which one this is, and how they find and leave each other."""
