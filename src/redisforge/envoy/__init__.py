"""Conversation with Envoy: admin API and endpoint probes."""
