"""A cluster at hand: its topology, folder, passwords and runtime. Every verb begins by opening one."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec.structs import replace

from redisforge.disk import PUBLIC_MODE, write_file
from redisforge.errors import HostError, NotFoundError, RedisForgeError
from redisforge.fleet.docker import DockerHost, DockerRuntime
from redisforge.fleet.hosts import HostsRuntime, Site
from redisforge.fleet.runtime import NoRuntime, ProcessRuntime, Runtime
from redisforge.fleet.transport import LocalTransport, Transport
from redisforge.model.facts import UnitState
from redisforge.model.layout import ClusterLayout
from redisforge.model.secret import Secret
from redisforge.model.topology import DEFAULT_USER, Credentials, ExternalAccess, Host, Topology, UserRole
from redisforge.redis.connection import Login

DEFAULT_NAME = "main"
"""What a cluster is called whose redisforge.yaml gives no name (config/schema.py)."""
_NAME_LINE = re.compile(r"""^name:[ \t]+(["']?)([a-z0-9-]+)\1[ \t]*(?:#.*)?\r?$""", re.MULTILINE)
_NAME_WITHIN_BYTES = 256 * 1024
"""As much as a declaration may have (config/yaml_lines.py)."""
REMOTE_PYTHON = "python3"
"""What keeps processes on another host (fleet/keeper.py): whichever is in its PATH, 3.9 or newer."""
OPERATOR_CERTIFICATE = "operator"
"""The name of the certificate with which RedisForge itself connects to nodes."""


class Cluster(msgspec.Struct, frozen=True):
    """Everything that a runbook needs of one cluster."""

    topology: Topology
    layout: ClusterLayout
    credentials: Credentials
    sites: Mapping[str, Site]
    """Where Units run, by the name of the host; hosts without an `ssh` are all this machine."""
    runtime: Runtime
    """All of the sites as one."""

    def site_of(self, unit_name: str) -> Site:
        """The site of a declared Unit. Raises StopIteration."""
        units = (*self.topology.nodes, *self.topology.envoys)
        return self.sites[next(unit.host for unit in units if unit.name == unit_name)]

    def unit_folder(self, unit_name: str) -> str:
        """The folder of a declared Unit on its host."""
        return self.site_of(unit_name).layout.unit(unit_name)

    def is_here(self, unit_name: str) -> bool:
        """Whether a declared Unit runs on this machine, under the cluster's own folder."""
        return self.site_of(unit_name).layout == self.layout

    def operator_login(self) -> Login:
        """How RedisForge logs in to the nodes themselves."""
        if self.topology.access:
            return self._external_login(self.topology.access)
        user = self.topology.user(UserRole.OPERATOR).name
        return Login(
            ca_path=self.layout.ca_certificate,
            certificate_path=self.layout.certificate(OPERATOR_CERTIFICATE),
            key_path=self.layout.key(OPERATOR_CERTIFICATE),
            user=user,
            password=self.credentials.password(user),
        )

    def _external_login(self, access: ExternalAccess) -> Login:
        tls = self.topology.tls
        paths = (tls.ca_path, tls.certificate_path, tls.key_path) if access.tls else ("", "", "")
        password = self.credentials.password(access.user or DEFAULT_USER) if access.password else Secret("")
        return Login(
            ca_path=paths[0],
            certificate_path=paths[1],
            key_path=paths[2],
            user=access.user,
            password=password,
            check_hostname=access.check_hostname,
        )

    def user_login(self, user_name: str) -> Login:
        """How a client logs in to an endpoint: the CA alone, no certificate of its own."""
        password = self.credentials.password(user_name)
        return Login(ca_path=self.layout.ca_certificate, user=user_name, password=password)

    def unit_names(self) -> tuple[str, ...]:
        """Every declared Unit: nodes that RedisForge runs, then Envoys."""
        return (
            *(node.name for node in self.topology.own_nodes),
            *(envoy.name for envoy in self.topology.envoys),
        )


def home_folder(environment: Mapping[str, str]) -> Path:
    """Where all state of this user's clusters lies: REDISFORGE_HOME, else the platform's state folder.

    Raises:
        HostError: it is there and may not be looked into, or its name cannot be one.
    """
    if configured := environment.get("REDISFORGE_HOME"):
        home = Path(configured).expanduser().absolute()
    else:
        import platformdirs

        home = Path(platformdirs.user_state_dir("redisforge"))
    try:
        home.joinpath("clusters").exists()
    except OSError as error:
        raise HostError(
            "the folder of this user's clusters cannot be read",
            where=str(home),
            why=error.strerror or str(error),
            next_step="set REDISFORGE_HOME to a folder of yours, or mend its owner and its mode",
        ) from error
    return home


def cluster_layout(home: Path, name: str) -> ClusterLayout:
    """The paths of the cluster called `name`."""
    return ClusterLayout(str(home / "clusters" / name))


def declared_name(folder: Path) -> str | None:
    """The cluster that redisforge.yaml in `folder` declares; None without such a file or a readable name.

    To say which cluster is meant, the file need not be valid as a whole. A name on a line of its own is read
    without the YAML reader, which takes longer to load than `status` should wait; every other spelling with it.
    """
    from redisforge.config.files import UnreadableFileError, read_bounded

    try:
        content, _ = read_bounded(folder / "redisforge.yaml", _NAME_WITHIN_BYTES)
    except UnreadableFileError:
        return None
    text = content.decode(errors="replace")
    if found := _NAME_LINE.search(text):
        return found[2]
    return _spelled_name(content) if "name" in text else DEFAULT_NAME


def _spelled_name(content: bytes) -> str | None:
    from redisforge.config.yaml_lines import UnreadableYamlError, read_yaml

    try:
        data = read_yaml(content).data
    except UnreadableYamlError:
        return None
    if not isinstance(data, dict):
        return None
    return str(data.get("name", DEFAULT_NAME))  # pyright: ignore[reportUnknownMemberType,reportUnknownArgumentType]


def cluster_names(home: Path) -> tuple[str, ...]:
    """The clusters that have been brought up under `home`."""
    return tuple(sorted(path.parent.name for path in (home / "clusters").glob("*/topology.json")))


def existing_layout(home: Path, name: str | None) -> ClusterLayout:
    """The folder of the cluster called `name`; without a name, the only one. It need not have come up yet.

    Raises:
        NotFoundError: none of that name, or several and none named.
    """
    names = sorted(path.name for path in (home / "clusters").glob("*") if path.is_dir())
    if name is None and len(names) == 1:
        name = names[0]
    if name not in names:
        raise NotFoundError(
            f"no cluster called {name!r}" if name else "which cluster?" if names else "there is no cluster yet",
            where=str(home),
            why=f"clusters here: {', '.join(names) or 'none'}",
            next_step="name one with --cluster NAME; REDISFORGE_HOME selects another folder",
        )
    return cluster_layout(home, name or "")


def make_cluster(topology: Topology, layout: ClusterLayout, credentials: Credentials) -> Cluster:
    """A Cluster with a way to each of its hosts. Nothing is connected yet."""
    if topology.access:
        return _of_others(topology, layout, credentials)
    return _on_sites(topology, layout, credentials, make_sites(topology, layout))


def with_topology(cluster: Cluster, topology: Topology) -> Cluster:
    """The same cluster with other Units, on the hosts that it has and those that are new, over the same connections.

    Units that `topology` does not have any more are found where they stand when the runtime observes.
    """
    if topology.access:
        return _of_others(topology, cluster.layout, cluster.credentials)
    known = {site.name: site for site in cluster.sites.values()}  # this machine is one site, whatever its hosts
    made = make_sites(topology, cluster.layout)
    sites = {host: known.get(site.name, site) for host, site in made.items()} | dict(cluster.sites)
    return _on_sites(topology, cluster.layout, cluster.credentials, sites)


def _on_sites(
    topology: Topology, layout: ClusterLayout, credentials: Credentials, sites: Mapping[str, Site]
) -> Cluster:
    distinct = list({id(site): site for site in sites.values()}.values())
    if len(distinct) == 1:
        return Cluster(topology, layout, credentials, sites, distinct[0].runtime)
    places = {unit.name: sites[unit.host] for unit in (*topology.own_nodes, *topology.envoys)}
    return Cluster(topology, layout, credentials, sites, HostsRuntime(distinct, places))


def _of_others(topology: Topology, layout: ClusterLayout, credentials: Credentials) -> Cluster:
    """A cluster that somebody else runs; where it is known what runs a node, that can be told to stop and start it."""
    from redisforge.fleet.services import Service, ServiceRuntime, read_service

    if not any(node.service for node in topology.nodes):
        return Cluster(topology, layout, credentials, {}, NoRuntime())
    sites = make_sites(topology, layout)
    services = {
        node.name: Service(*read_service(node.service), sites[node.host].transport)
        for node in topology.nodes
        if node.service
    }
    return Cluster(topology, layout, credentials, {}, ServiceRuntime(services))  # nothing of ours lies on these hosts


def make_sites(topology: Topology, layout: ClusterLayout) -> dict[str, Site]:
    """The site of every host, by name."""
    transport = LocalTransport()
    here = Site("this machine", transport, layout, ProcessRuntime(transport, layout))
    sites = {host.name: here for host in topology.hosts}
    sites |= {unit.host: here for unit in (*topology.own_nodes, *topology.envoys)}
    if contained := [host for host in topology.hosts if host.ssh is None and host.runtime == "docker"]:
        there = host_layout(contained[0], topology.name, layout)
        folder_mark = hashlib.sha256(there.folder.encode()).hexdigest()[:6]  # homes on one machine share its Docker
        docker = DockerHost(topology.name, f"redisforge-{topology.name}-{folder_mark}-")
        site = Site("Docker on this machine", transport, there, DockerRuntime(transport, there, docker))
        sites |= {host.name: site for host in contained}
    return sites | _remote_sites(topology, layout)


def _remote_sites(topology: Topology, layout: ClusterLayout) -> dict[str, Site]:
    remote = {host.name: host for host in topology.hosts if host.ssh is not None}
    if not remote:
        return {}
    from redisforge.fleet.ssh_pool import make_transports

    ways = {
        name: replace(host.ssh, address=host.ssh.address or host.address) for name, host in remote.items() if host.ssh
    }
    sites: dict[str, Site] = {}
    for name, transport in make_transports(ways, own_known_hosts=known_hosts(layout)).items():
        there = host_layout(remote[name], topology.name, layout)
        sites[name] = Site(name, transport, there, _remote_runtime(remote[name], topology, transport, there))
    return sites


def _remote_runtime(host: Host, topology: Topology, transport: Transport, there: ClusterLayout) -> Runtime:
    if host.runtime == "docker":
        return DockerRuntime(transport, there, DockerHost(topology.name, f"redisforge-{topology.name}-"))
    return ProcessRuntime(transport, there, python=REMOTE_PYTHON)


def known_hosts(layout: ClusterLayout) -> Path:
    """RedisForge's own list of trusted host keys, for all clusters of this home."""
    return Path(layout.folder).parent.parent / "known_hosts"


def host_layout(host: Host, cluster_name: str, layout: ClusterLayout) -> ClusterLayout:
    """The paths of a cluster's folder on a host; `layout` is that on this machine.

    Containers of this machine have a folder below it: they shall not see the CA's key.
    """
    if host.runtime == "docker" and host.ssh is None:
        return ClusterLayout(f"{layout.folder}/docker")
    return layout if host.ssh is None else ClusterLayout(f"{host.folder}/clusters/{cluster_name}")


def programs_folder(host: Host) -> str:
    """Where the programs lie that were carried to a host; all clusters there share them."""
    return f"{host.folder}/programs"


def data_places(cluster: Cluster) -> str:
    """Where what the cluster keeps lies, in words: a folder here, or on its hosts."""
    if not cluster.sites:  # somebody else runs the nodes: there is no more than what is recorded of them
        return cluster.layout.folder
    names: dict[str, list[str]] = {}
    for site in cluster.sites.values():
        names.setdefault(site.layout.folder, []).append("" if site.layout == cluster.layout else site.name)
    return "; ".join(
        f"{folder} on {', '.join(sorted(hosts))}" if all(hosts) else folder for folder, hosts in names.items()
    )


async def remove_from_hosts(cluster: Cluster) -> None:
    """Delete the cluster's folder on every other host, keys and data with it. Raises HostError.

    The programs stay: other clusters may run with them.
    """
    remote = {site.name: site for site in cluster.sites.values() if site.layout != cluster.layout}
    if remote:  # a stopped container is there until it is removed
        found = await cluster.runtime.observe()
        await cluster.runtime.remove([name for name, unit in found.items() if unit.state is not UnitState.UNKNOWN])
    await asyncio.gather(*(site.transport.remove(site.layout.folder) for site in remote.values()))


def open_cluster(home: Path, name: str | None) -> Cluster:
    """The cluster called `name` as its last `up` declared it; without a name, the only one there is.

    Raises:
        NotFoundError: none of that name, or several and none named.
        SecretError: its passwords cannot be read.
    """
    from redisforge.security.secrets import load_credentials

    names = cluster_names(home)
    if name is None:
        if len(names) != 1:
            found = ", ".join(names) or "none"
            raise NotFoundError(
                "which cluster?" if names else "there is no cluster yet",
                where=str(home),
                why=f"clusters here: {found}",
                next_step="name one with --cluster NAME" if names else "raise one with `redisforge up`",
            )
        name = names[0]
    if name not in names:
        raise NotFoundError(
            f"no cluster called {name!r}",
            where=str(home),
            why=f"clusters here: {', '.join(names) or 'none'}",
            next_step="`redisforge up` raises it; REDISFORGE_HOME selects another folder",
        )
    layout = cluster_layout(home, name)
    topology = read_topology(layout)
    return make_cluster(topology, layout, load_credentials(topology, layout))


def read_topology(layout: ClusterLayout) -> Topology:
    """The topology that the last `up` recorded. Raises RedisForgeError if the record cannot be read."""
    try:
        return msgspec.json.decode(Path(layout.topology).read_bytes(), type=Topology)
    except (OSError, msgspec.DecodeError) as error:
        raise RedisForgeError(
            "the cluster's recorded topology cannot be read",
            where=layout.topology,
            why=str(error),
            next_step="run `redisforge up` again where its redisforge.yaml lies; it writes the record anew",
        ) from error


def record_topology(cluster: Cluster) -> None:
    """Record the topology, so that every verb finds the cluster as it is now; writes only what differs."""
    path, content = Path(cluster.layout.topology), topology_json(cluster.topology).encode()
    if not path.exists() or path.read_bytes() != content:
        write_file(path, content, PUBLIC_MODE)


def topology_json(topology: Topology) -> str:
    """The topology as it is recorded and shown."""
    return msgspec.json.format(msgspec.json.encode(topology), indent=2).decode() + "\n"
