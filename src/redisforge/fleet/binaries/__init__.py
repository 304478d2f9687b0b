"""Engines and Envoy as programs on this machine: found, or fetched into RedisForge's own cache.

    ensure_engine, ensure_envoy     find or fetch what a topology asks for (ensure.py)
    locate_engine, locate_envoy     the same without fetching
    find_engine, find_envoy         whether it would be fetched
    list_binaries                   what is here and what could be fetched (listing.py)
    cache_folder                    where fetched programs are kept (cache.py)
    entry_folder                    which entry of it a program belongs to

All of it is synchronous; an asynchronous caller runs it in a thread.
"""

from redisforge.fleet.binaries.cache import cache_folder, entry_folder
from redisforge.fleet.binaries.ensure import (
    ensure_engine,
    ensure_envoy,
    find_engine,
    find_envoy,
    locate_engine,
    locate_envoy,
)
from redisforge.fleet.binaries.listing import ListedBinary, list_binaries
from redisforge.fleet.binaries.locate import EngineBinary, EnvoyBinary

__all__ = [
    "EngineBinary",
    "EnvoyBinary",
    "ListedBinary",
    "cache_folder",
    "ensure_engine",
    "ensure_envoy",
    "entry_folder",
    "find_engine",
    "find_envoy",
    "list_binaries",
    "locate_engine",
    "locate_envoy",
]
