"""Conversation with Redis: connections, observation, formation commands."""
