"""One cluster, several operators' machines: the record on the hosts says what there is, and whose CA and passwords.

    a verb takes the lock → the hosts show their record → newer than this machine's: taken over, and the verb ends
    a verb changes the topology → the record goes to the hosts before anything starts

No secret is kept on the hosts for that (decision 0012). A machine without the cluster's CA or passwords is refused
before it makes others: a second CA would lock out whoever trusts the first.
"""

from __future__ import annotations

import getpass
import hashlib
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from redisforge.disk import PRIVATE_MODE, PUBLIC_MODE, write_file
from redisforge.errors import RefusedError, SecretError
from redisforge.fleet.hosts import Site
from redisforge.fleet.ssh_pool import over_hosts
from redisforge.model.layout import ClusterLayout
from redisforge.model.secret import Secret
from redisforge.model.shared_record import SharedRecord, own_form, shared_form
from redisforge.model.topology import Credentials, Topology
from redisforge.model.unit import UnitFile
from redisforge.runbooks.cluster import Cluster, read_topology, topology_json, with_topology

RECORD_FILE = "record.json"


async def share_record(cluster: Cluster, shared: dict[str, int] | None = None) -> None:
    """Put the record of the cluster as it is now on all other hosts; a later verb does those that cannot be reached.

    `shared` has the serial of the record that each host has from this verb, by name: those that have it are not told
    again.
    """
    remote = [cluster.sites[host.name] for host in cluster.topology.hosts if host.ssh is not None]
    if not remote:
        return
    before = local_record(cluster.layout)
    topology = shared_form(cluster.topology)
    record = SharedRecord(
        serial=before.serial if before else 0,
        by=f"{getpass.getuser()}@{socket.gethostname()}",
        folder=cluster.layout.folder,
        ca=ca_sum(cluster.topology, cluster.layout),
        passwords=passwords_sum(cluster.credentials),
        topology=topology,
    )
    if before is None or (before.topology, before.ca, before.passwords) != (topology, record.ca, record.passwords):
        record = msgspec.structs.replace(record, serial=record.serial + 1)
        write_file(Path(cluster.layout.folder, RECORD_FILE), encoded(record), PRIVATE_MODE)
    else:
        record = before
    file = UnitFile(RECORD_FILE, encoded(record).decode(), PRIVATE_MODE)
    told = {} if shared is None else shared

    async def tell(site: Site) -> None:
        await site.transport.place(site.layout.folder, [file])
        told[site.name] = record.serial

    await over_hosts(tell, [site for site in remote if told.get(site.name) != record.serial])


async def changed_elsewhere(cluster: Cluster) -> SharedRecord | None:
    """The newest record that the hosts show, if it is newer than this machine's, and of the same CA and passwords: what
    there is now. For those who only look; whoever changes something catches up first."""
    remote = [cluster.sites[host.name] for host in cluster.topology.hosts if host.ssh is not None]
    own = local_record(cluster.layout) if remote else None
    if own is None:
        return None

    async def shown(site: Site) -> str:
        return await site.transport.read(f"{site.layout.folder}/{RECORD_FILE}") or ""

    texts = [text for text in await over_hosts(shown, remote) if isinstance(text, str)]
    newest = max(filter(None, map(decoded, texts)), key=lambda record: record.serial, default=None)
    if newest is None or newest.serial <= own.serial or (newest.ca, newest.passwords) != (own.ca, own.passwords):
        return None
    return newest


def as_changed(cluster: Cluster, record: SharedRecord) -> Cluster:
    """The cluster as a record of another machine has it, for looking at it."""
    return with_topology(cluster, own_form(record.topology, cluster.topology))


def catch_up(
    shown: Iterable[str], topology: Topology, layout: ClusterLayout, supplied: Mapping[str, Secret] | None = None
) -> None:
    """Compare what the hosts show (texts of records) with what this machine has of the cluster.

    Raises:
        RefusedError: the cluster has another CA or other passwords; or its record was newer and has been taken over:
            the same command, run again, works on it.
    """
    newest = max(filter(None, map(decoded, shown)), key=lambda record: record.serial, default=None)
    own = local_record(layout)
    if newest is None or (own is not None and own.serial >= newest.serial and own.ca == newest.ca):
        return
    if problem := _strangeness(newest, topology, layout, supplied or {}):
        raise RefusedError(
            "the cluster on these hosts was raised from another machine, and this one has not its secrets",
            where=f"{newest.topology.name}, as {newest.by} left it",
            why=problem,
            next_step=f"on that machine (folder {newest.folder}): redisforge access export FILE\n"
            "bring FILE here by a safe way, then: redisforge access import FILE",
        )
    take_over(newest, topology, layout)
    raise RefusedError(
        "the cluster was changed from another machine; this one has caught up now",
        where=f"{newest.topology.name}, as {newest.by} left it",
        why=f"the hosts have record {newest.serial}, this machine had {own.serial if own else 'none'}",
        next_step="look at it with `redisforge status`, and run the same command again",
    )


def take_over(record: SharedRecord, topology: Topology | None, layout: ClusterLayout) -> None:
    """Make a shared record this machine's own; `topology` is its own declaration, which has the ways to the hosts."""
    mine = read_topology(layout) if Path(layout.topology).exists() else topology
    text = topology_json(own_form(record.topology, mine))
    write_file(Path(layout.topology), text.encode(), PUBLIC_MODE)
    write_file(Path(layout.folder, RECORD_FILE), encoded(record), PRIVATE_MODE)


def local_record(layout: ClusterLayout) -> SharedRecord | None:
    """The record that this machine wrote or took over last."""
    try:
        return decoded(Path(layout.folder, RECORD_FILE).read_text())
    except OSError:
        return None


def encoded(record: SharedRecord) -> bytes:
    """One line: the host shows it in its answer to the lock."""
    return msgspec.json.encode(record) + b"\n"


def decoded(text: str) -> SharedRecord | None:
    """The record, or None for what is none: a file that was damaged must not keep anybody from the cluster."""
    try:
        return msgspec.json.decode(text, type=SharedRecord)
    except msgspec.DecodeError:
        return None


def ca_sum(topology: Topology, layout: ClusterLayout) -> str:
    """Of the CA certificate that this machine has for the cluster; empty if it has none."""
    for path in (layout.ca_certificate, topology.tls.ca_path):
        if path and Path(path).is_file():
            return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return ""


def passwords_sum(credentials: Credentials) -> str:
    """Of all passwords together: of one that a person chose, too little can be learned from it to guess the others."""
    words = (f"{name}\0{credentials.password(name).reveal()}\0" for name in sorted(credentials.user_names()))
    return hashlib.sha256("".join(words).encode()).hexdigest()


def _strangeness(
    record: SharedRecord, topology: Topology, layout: ClusterLayout, supplied: Mapping[str, Secret]
) -> str:
    """Why this machine must not operate the cluster; empty if nothing speaks against it."""
    own_ca = ca_sum(topology, layout)
    if own_ca != record.ca:
        return "it has another CA" if own_ca else "it has no CA certificate for it, and must not make another CA"
    try:
        passwords = _own_passwords(topology, layout, supplied)
    except SecretError as error:
        return f"{error.what}: {error.why}"
    return "" if passwords == record.passwords else "its passwords are not those of the cluster"


def _own_passwords(topology: Topology, layout: ClusterLayout, supplied: Mapping[str, Secret]) -> str:
    """Of the stored and the supplied ones; a missing one is made up and so does not fit."""
    from redisforge.security.secrets import resolve_credentials

    credentials, _ = resolve_credentials(topology, supplied, layout, store=False)
    return passwords_sum(credentials)
