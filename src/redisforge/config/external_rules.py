"""Rules on nodes that somebody else runs (`external`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from redisforge.config.broken import BrokenRule
from redisforge.config.values import is_loopback

if TYPE_CHECKING:
    from redisforge.config.problems import OptionPath
    from redisforge.config.schema import Declaration

_OF_OUR_UNITS = ("endpoints", "envoy", "users", "handoff")
_CA_ADVICE = "Give the CA that has issued the nodes' certificates, or external.tls: false."


def broken_external_rules(declaration: Declaration) -> Iterator[BrokenRule]:
    """Every finding; nothing where no node is declared."""
    external, tls = declaration.external, declaration.tls
    if not external.nodes:
        return
    if external.tls and not tls.ca_file:
        paths: tuple[OptionPath, ...] = (("external", "tls"), ("tls", "ca_file"), ("external",))
        yield BrokenRule(paths, "needs tls.ca_file: without a CA no certificate can be checked", _CA_ADVICE)
    if bool(tls.cert_file) != bool(tls.key_file):
        given = "cert_file" if tls.cert_file else "key_file"
        yield BrokenRule((("tls", given),), "a client certificate is tls.cert_file and tls.key_file", "Give both.")
    if external.user and not external.password:
        what = "a user logs in with a password, and external.password is false"
        yield BrokenRule((("external", "user"), ("external", "password")), what, "Remove one of the two.")
    yield from _twice(declaration)
    yield from _services(declaration)
    missing = sorted(set(range(1, declaration.shards + 1)) - {node.shard for node in external.nodes})
    if missing:
        listed = ", ".join(map(str, missing[:8]))
        what = f"no node of shard {listed} is declared, and there are {declaration.shards} shards"
        yield BrokenRule((("shards",), ("external", "nodes")), what, "Correct shards, or the nodes' shard numbers.")


def _twice(declaration: Declaration) -> Iterator[BrokenRule]:
    seen: dict[tuple[str, int], int] = {}
    for index, node in enumerate(declaration.external.nodes):
        first = seen.setdefault((node.address, node.port), index)
        if first != index:
            what = f"{node.address}:{node.port} is there twice (also external.nodes[{first}])"
            yield BrokenRule((("external", "nodes", index, "port"),), what, "Remove one of the two.")


def _services(declaration: Declaration) -> Iterator[BrokenRule]:
    """A service is asked for on its host, so there must be a way to that."""
    hosts = declaration.hosts if "hosts" in declaration.model_fields_set else ()
    known = {host.name for host in hosts} | {host.address for host in hosts}
    for index, node in enumerate(declaration.external.nodes):
        if node.service and not is_loopback(node.address) and not known & {node.host, node.address}:
            what = f"{node.service} runs on a host that is not among `hosts`"
            step = f"List it: `- {{name: NAME, address: {node.address}}}`."
            yield BrokenRule((("external", "nodes", index, "service"),), what, step)


def external_notices(declaration: Declaration) -> Iterator[str]:
    """What is not protected, and what has no effect."""
    external = declaration.external
    if not external.nodes:
        return
    if not external.tls:
        yield "external.tls is false: the password and all data cross the network in plain text"
    elif not external.check_hostname:
        yield "external.check_hostname is false: whoever has any certificate of the CA can pose as a node"
    if written := sorted(declaration.model_fields_set.intersection(_OF_OUR_UNITS)):
        yield f"{', '.join(written)}: not used, for somebody else runs this cluster (external.nodes)"
    if not external.password:
        yield "external.password is false: whoever reaches the nodes may do everything"
