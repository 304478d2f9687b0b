"""The README of an exported cluster: how to start it on its hosts, and how to form it. Pure."""

from __future__ import annotations

from typing import Literal

from redisforge.model.exported import ExportedCluster, ExportedProcess
from redisforge.model.topology import Role
from redisforge.render.export_compose import FIRST_FREE_PORT, low_port_setting, project_name
from redisforge.render.export_systemd import SYSTEM_USER

ExportKind = Literal["compose", "systemd"]


def readme_text(cluster: ExportedCluster, kind: ExportKind) -> str:
    """README.md of the exported folder."""
    hosts = "\n".join(
        f"| `hosts/{host.name}/` | {host.address} | {', '.join(process.name for process in host.processes)} |"
        for host in cluster.hosts
    )
    engine = f"{len(cluster.nodes)} nodes of {cluster.engine} {cluster.engine_version}"
    envoys = sum(process.kind == "envoy" for process in _processes(cluster))
    first = cluster.nodes[0]
    start = _compose(cluster) if kind == "compose" else _systemd(cluster)
    return f"""\
# Cluster {cluster.name}, to be run without RedisForge

Exported by `redisforge export {kind}`: {engine}, and Envoy {cluster.envoy_version} ({envoys}); TLS on all links.
Here are passwords and private keys (mode 0600): keep this folder to yourself, and out of version control.

| folder | host | what runs there |
| --- | --- | --- |
{hosts}
| `operator/` | yours | `secrets.env` (all passwords), the CA with its key, the operator's certificate |

## 1. Start

{start}
## 2. Form the cluster, once

{_form(cluster)}
## 3. Connect

{_connect(cluster)}
## What is not there

RedisForge's keeper stands behind the nodes of its own clusters: it hands a stopping master's slots over, has a replica
take over at once when a master dies, and holds a node back whose data is gone. Here Redis's own failover does what it
can:

- stop a master only after `CLUSTER FAILOVER` on its replica;
- a master whose data folder is lost must not be started empty before its replica has taken over: its replicas would
  copy the emptiness.

`redisforge adopt` makes its other verbs (status, failover, rebalance, scale add and remove) work here too:

    redisforge adopt {first.address}:{first.port} --user {cluster.operator} --ca operator/tls/ca.crt \\
      --cert operator/tls/operator.crt --key operator/tls/operator.key
"""


def _compose(cluster: ExportedCluster) -> str:
    images = "\n".join(f"    {name}" for name in dict.fromkeys(made.container.image for made in _processes(cluster)))
    return f"""\
Docker 20.10 or newer with its compose plugin, and these images; `redisforge images build` makes those that are called
`redisforge/…`:

{images}

Copy a host's folder there, and in it, as root:

    chown -R 999:999 files data
    chmod -R go= files data
    docker compose up -d
    docker compose ps           # all are healthy after some seconds

Data is in `data/NAME` beside compose.yaml; `docker compose down` keeps it.
{_low_port(cluster)}
The older docker-compose (1.29) does not know the line `name:` of compose.yaml: delete it, and type
`docker-compose -p {project_name(cluster.name)}` for `docker compose`.

A Docker that may not open as many files as `ulimits` asks for (it runs inside of a container) starts nothing and says
"error setting rlimit": write a smaller number there.
"""


def _low_port(cluster: ExportedCluster) -> str:
    lowest = min(process.lowest_port for process in _processes(cluster))
    if lowest >= FIRST_FREE_PORT:
        return ""
    return f"""
A port below 1024 is not for the user of a container, whatever capability it has. A host with one must be told:

    sysctl -w {low_port_setting(lowest)}       # and the same in a file of /etc/sysctl.d
"""


def _systemd(cluster: ExportedCluster) -> str:
    programs = dict.fromkeys((process.kind, process.version, process.argv[0]) for process in _processes(cluster))
    listed = "\n".join(f"- {kind} {version} as `{path}`" for kind, version, path in programs)
    return f"""\
On every host these programs must be there:

{listed}

Copy a host's folder there and run `./install.sh` in it as root: it makes the user `{SYSTEM_USER}`, puts the files into
`{cluster.root}` and the units into /etc/systemd/system, and starts them.
It can be run again, and is short: read it.

    systemctl status 'redisforge-{cluster.name}-*'
    journalctl -u redisforge-{cluster.name}-{cluster.nodes[0].name}
"""


def _processes(cluster: ExportedCluster) -> list[ExportedProcess]:
    return [process for host in cluster.hosts for process in host.processes]


def _form(cluster: ExportedCluster) -> str:
    masters = [node for node in cluster.nodes if node.intended_role is Role.MASTER]
    replicas = [node for node in cluster.nodes if node.intended_role is Role.REPLICA]
    ordered = [*masters, *replicas]
    zoned = ",".join(f"{node.address}:{node.port}@{node.zone}" for node in ordered)
    plain = " ".join(f"{node.address}:{node.port}" for node in ordered)
    client = "--cert operator/tls/operator.crt --key operator/tls/operator.key"
    files = client.replace("--cert ", "--cert-file ").replace("--key ", "--key-file ")
    with_redisforge = f"""\
with RedisForge, which keeps a master and its replicas in different zones:

    set -a; . operator/secrets.env; set +a
    redisforge init-cluster {zoned} \\
      --replicas {cluster.replicas} --user {cluster.operator} --ca-file operator/tls/ca.crt {files}

or """
    return f"""\
In this folder, {with_redisforge if cluster.can_init else ""}with redis-cli, which goes by addresses alone:

    set -a; . operator/secrets.env; set +a
    REDISCLI_AUTH="$REDIS_REQUIREPASS" {cluster.engine}-cli --user {cluster.operator} \\
      --tls --cacert operator/tls/ca.crt {client} --cluster create \\
      {plain} --cluster-replicas {cluster.replicas}
"""


def _connect(cluster: ExportedCluster) -> str:
    doors = "\n".join(f"- {door}" for door in cluster.endpoints)
    return f"""\
Clients trust `operator/tls/ca.crt`; users and passwords are in `operator/secrets.env`.

{doors}
"""
