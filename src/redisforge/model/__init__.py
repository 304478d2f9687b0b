"""Frozen types only: the vocabulary."""
