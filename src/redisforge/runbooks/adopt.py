"""`adopt`: read a running cluster that somebody else built, and write the redisforge.yaml that describes it.

Nothing there is changed: all that is sent is AUTH, INFO, CONFIG GET, and CLUSTER MYID, NODES, INFO and SLOTS. The
cluster is then recorded under REDISFORGE_HOME, with its password, as `up` records its own.
"""

from __future__ import annotations

import asyncio
import getpass
import re
import time
from pathlib import Path

import msgspec
from msgspec.structs import replace

from redisforge.config.environment import OLDEST_ENGINE, Overrides
from redisforge.config.layers import Declared, Written, declare
from redisforge.config.values import NAME_PATTERN
from redisforge.config.yaml_lines import read_yaml
from redisforge.disk import PUBLIC_MODE, write_file
from redisforge.errors import NodeError, RedisForgeError, RefusedError, UsageError
from redisforge.fleet.journal import Journal
from redisforge.fleet.lock import cluster_lock
from redisforge.model.facts import Facts, NodeFacts
from redisforge.model.layout import ClusterLayout
from redisforge.model.topology import DEFAULT_USER, ExternalAccess, Topology
from redisforge.plan.adopting import adopted_shape, members_of
from redisforge.redis.connection import Login, ReplyError
from redisforge.redis.observe import NodeAsker, read_settings
from redisforge.render.adopted_yaml import Adopted, Settings, adopted_yaml
from redisforge.render.directives import known_directives, settable_directives
from redisforge.render.settings import SECRET_DIRECTIVES
from redisforge.runbooks.cluster import cluster_layout, cluster_names, make_cluster, read_topology, record_topology
from redisforge.runbooks.seed import open_seed

_TIMEOUT_S = 5.0


class Adoption(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for: any member as (address, port), how to log in, the cluster's name here, the file to write."""

    seed: tuple[str, int]
    login: Login
    name: str
    path: Path
    force: bool = False


class AdoptionReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `adopt` found. `text` is the file's content; `written` says whether it is there."""

    cluster: str
    file: str
    written: bool
    shards: int
    replicas: int
    nodes: tuple[str, ...]
    notices: tuple[str, ...]
    text: str


def adopt(asked: Adoption, layout: ClusterLayout, *, dry_run: bool) -> AdoptionReport:
    """Describe the cluster; unless `dry_run`, write the file and record the cluster in `layout`.

    Raises:
        NodeError: the seed or a member cannot be reached, or is not part of a cluster.
        SecretError: the password is wrong, missing, or of no use.
        UsageError: the name cannot be one, or the file's folder does not exist.
        RefusedError: the file or a cluster of that name is there already; the cluster is known here by another name, is
            half formed, or too small.
    """
    if not re.fullmatch(NAME_PATTERN, asked.name):
        raise UsageError(
            f"{asked.name!r} cannot be a cluster's name",
            next_step="give --name at most 31 lower-case letters, digits and hyphens",
        )
    _refuse_existing(asked, layout)
    found, notices = asyncio.run(_read(asked))
    _refuse_known(asked, layout, found)
    text = adopted_yaml(found)
    declared = _declared(text, asked.path)
    if not dry_run:
        _write(asked, layout, text, declared.topology)
    return AdoptionReport(
        cluster=asked.name,
        file=str(asked.path),
        written=not dry_run,
        shards=found.shape.shards,
        replicas=found.shape.replicas,
        nodes=tuple(node.name for node in declared.topology.nodes),
        notices=(*notices, *declared.notices),
        text=text,
    )


def _refuse_existing(asked: Adoption, layout: ClusterLayout) -> None:
    if not asked.path.parent.is_dir():
        raise UsageError(
            "the folder of the file does not exist",
            where=str(asked.path.parent),
            next_step="make it, or name another file with --out",
        )
    if (asked.path.exists() or asked.path.is_symlink()) and not asked.force:
        raise RefusedError(
            "the file is there already",
            where=str(asked.path),
            why="what it declares would be gone",
            next_step="name another one with --out, or replace it with --force",
        )
    if not Path(layout.topology).exists():
        return
    own = read_topology(layout).access is None
    if own or not asked.force:
        raise RefusedError(
            f"there is a cluster called {asked.name!r} already",
            where=layout.folder,
            why="RedisForge has raised it itself" if own else "it has been adopted before",
            next_step="choose another name with --name" + ("" if own else ", or describe it anew with --force"),
        )


def _refuse_known(asked: Adoption, layout: ClusterLayout, found: Adopted) -> None:
    """Two names for one cluster would be two locks, two journals and two declarations of it.

    It is known if most of its nodes are recorded: single addresses may have been another cluster's before.
    """
    members = {(node.address, node.port) for node in found.shape.nodes}
    home = Path(layout.folder).parent.parent
    for name in cluster_names(home):
        if name == asked.name:
            continue
        try:
            known = read_topology(cluster_layout(home, name))
        except RedisForgeError:
            continue
        recorded = {(node.address, node.port) for node in known.nodes}
        if 2 * len(members & recorded) <= len(members):
            continue
        own = known.access is None
        cure = "go on with its own file, and give" if own else f"describe it anew with --name {name} --force, or give"
        raise RefusedError(
            f"this cluster is known here already, as {name!r}",
            where=known.source or cluster_layout(home, name).folder,
            why=f"{len(members & recorded)} of its {len(members)} nodes are recorded there; "
            + ("RedisForge runs that cluster itself" if own else "it has been adopted before"),
            next_step=f"{cure} the verbs --cluster {name}; if that one is gone and this is another, "
            f"`redisforge down --purge --cluster {name}` {'deletes what is left of it' if own else 'forgets it'}",
        )


async def _read(asked: Adoption) -> tuple[Adopted, tuple[str, ...]]:
    async with NodeAsker(asked.login, timeout_s=_TIMEOUT_S, with_listing=True) as asker:
        info = await open_seed(asker, asked.seed, asked.login)
        kind = "valkey" if "valkey_version" in info else "redis"
        _refuse_old(info, asked.seed)
        seed = await asker.observe(f"{asked.seed[0]}:{asked.seed[1]}", asked.seed)
        if seed.problem:
            raise NodeError("the seed cannot be asked", where=seed.name, why=seed.problem)
        members = members_of(seed)
        places = [(f"{peer.address}:{peer.port}", (peer.address, peer.port)) for peer in members]
        facts = Facts(observed_at_s=time.time(), nodes=await asker.observe_all(places))
        shape = adopted_shape(_for_messages(asked.name), facts, members)
        settings, notices = await _settings(asker, facts, kind)
    versions = sorted({node.version for node in facts.reachable_nodes()}, key=_numbers)
    if len(versions) > 1:
        notices = (*notices, f"the nodes run different versions: {', '.join(versions)}")
    login = asked.login
    access = ExternalAccess(
        tls=bool(login.ca_path),
        check_hostname=login.check_hostname,
        user=login.user if login.user != DEFAULT_USER else "",
        password=bool(login.password),
    )
    found = Adopted(
        name=asked.name, seed=seed.name, kind=kind, series=".".join(versions[0].split(".")[:2]), shape=shape,
        access=access, ca_path=login.ca_path, certificate_path=login.certificate_path, key_path=login.key_path,
        settings=settings, defaults=settable_directives(kind, versions[0]).defaults,
    )  # fmt: skip
    return found, (*shape.notices, *notices)


def _refuse_old(info: dict[str, str], seed: tuple[str, int]) -> None:
    version = info.get("redis_version", "0.0")
    if _numbers(version)[:2] < OLDEST_ENGINE:
        oldest = ".".join(map(str, OLDEST_ENGINE))
        raise NodeError(
            f"the cluster runs Redis {version}",
            where=f"{seed[0]}:{seed[1]}",
            why=f"RedisForge works with Redis {oldest} and newer, and with Valkey",
            next_step=f"upgrade it to {oldest} or newer by what runs it",
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


async def _settings(asker: NodeAsker, facts: Facts, kind: str) -> tuple[Settings, tuple[str, ...]]:
    """What every node says of its settings, secrets left out; one that may not be asked is left out too, and said."""
    nodes = facts.reachable_nodes()
    names = sorted((known_directives(kind, "newest") or frozenset()) - SECRET_DIRECTIVES)

    async def ask(node: NodeFacts) -> tuple[str, dict[str, str] | NodeError]:
        try:
            reply = await asker.call((node.address, node.port), "CONFIG", "GET", *names)
        except ReplyError as error:
            return node.name, error
        return node.name, read_settings(reply)

    answers = dict(await asyncio.gather(*(ask(node) for node in nodes)))
    refused = {name: answer.why for name, answer in answers.items() if isinstance(answer, NodeError)}
    settings = {name: answer for name, answer in answers.items() if not isinstance(answer, NodeError)}
    if not refused:
        return settings, ()
    listed, why = ", ".join(list(refused)[:4]), next(iter(refused.values()))
    return settings, (f"the settings of {listed} could not be read, so the defaults are declared: {why}",)


def _for_messages(name: str) -> Topology:
    from redisforge.runbooks.init_cluster import bare_topology

    return replace(bare_topology((), (), 0, 0), name=name)


def _declared(text: str, path: Path) -> Declared:
    """The text as it will be read; that it can be read is a promise of this verb."""
    document = read_yaml(text.encode())
    declared = declare(
        Written(document.data, document.lines, path.name, str(path)), Overrides({}, {}, {}, {}, ()), path.parent
    )
    if declared.problems:
        raise RedisForgeError(
            "the cluster cannot be described",
            where=str(path),
            why="\n".join(str(problem) for problem in declared.problems[:8]),
            next_step="report this as a defect, with the text that --dry-run prints",
        )
    return declared


def _write(asked: Adoption, layout: ClusterLayout, text: str, topology: Topology) -> None:
    """The password first: a record without it would be no use. The file last: it says that all is done."""
    from redisforge.security.secrets import resolve_credentials

    with cluster_lock(Path(layout.lock), "adopt"):
        began = time.monotonic()
        supplied = {user.name: asked.login.password for user in topology.users}
        credentials, _ = resolve_credentials(topology, supplied, layout)
        record_topology(make_cluster(topology, layout, credentials))
        if not write_file(asked.path, text.encode(), PUBLIC_MODE, replace=asked.force):
            raise RefusedError("the file has been written by somebody else meanwhile", where=str(asked.path))
        journal = Journal(Path(layout.journal), verb="adopt", user=getpass.getuser())
        journal.write_end(what=f"{asked.seed[0]}:{asked.seed[1]}", seconds=time.monotonic() - began)
