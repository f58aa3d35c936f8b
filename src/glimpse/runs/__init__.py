"""Run folders: what they hold, and what can be done with them."""
