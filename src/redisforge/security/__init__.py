"""Certificates and secrets."""
