"""Sweeps: `python train.py -m`, from the list of jobs to the table at the end."""
