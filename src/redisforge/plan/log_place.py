"""Where a node's log is: RedisForge's own have theirs with it, others with what runs them. Pure."""

from __future__ import annotations

from redisforge.model.topology import RedisNode

_COMMANDS = {"systemd": "journalctl -u", "docker": "docker logs"}


def log_place(node: RedisNode) -> str:
    """How to read it, as the beginning of an advice."""
    if node.managed:
        return f"`redisforge logs {node.name}`"
    if command := log_command(node):
        return f"`{command}` on {node.host}"
    return "see the log of what runs it"


def log_command(node: RedisNode) -> str:
    """What shows the log of a node that somebody else runs, on its host; empty if it is not known what runs it."""
    kind, _, name = node.service.partition(":")
    return f"{_COMMANDS[kind]} {name}" if kind in _COMMANDS else ""
