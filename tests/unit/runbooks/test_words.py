"""Likely causes and tables: text from values."""
