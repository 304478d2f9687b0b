"""Data that is gone: given up only by name, and nowhere else."""
