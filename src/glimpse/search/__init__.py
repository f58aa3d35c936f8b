"""`hydra/sweeper=search`: what is searched, what to try next, and when a trial stops early."""
