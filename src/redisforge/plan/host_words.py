"""Figures in words, for the checks of hosts."""

from __future__ import annotations


def readable_bytes(size_bytes: float) -> str:
    """1610612736 -> `1.5 GB`; units of 1024."""
    size, units = float(size_bytes), ("B", "KB", "MB", "GB", "TB")
    for unit in units:
        if size < 1024 or unit == units[-1]:
            return f"{size:.0f} {unit}" if size >= 100 or unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return ""


def readable_seconds(seconds: float) -> str:
    """0.0123 -> `12.3 ms`, 75.2 -> `75.2 s`."""
    return f"{seconds * 1000:.1f} ms" if abs(seconds) < 1 else f"{seconds:.1f} s"
