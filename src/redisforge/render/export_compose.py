"""A docker-compose file for the processes of one host, for a cluster that is run without RedisForge. Pure.

Host networking: nodes announce the addresses that they listen on, and a bridge would put others between. Reference:
https://docs.docker.com/reference/compose-file/services/.
"""

from __future__ import annotations

import shlex

from redisforge.model.exported import ExportedHost, ExportedProcess
from redisforge.model.images import ENGINE_USER
from redisforge.render.commented_yaml import Noted, Value, to_yaml
from redisforge.render.container import OPEN_HOME, TMPFS

LABEL = "io.redisforge.export"
"""The labels of exported containers begin with it: others than those by which the Docker runtime knows its own."""
FIRST_FREE_PORT = 1024
"""Below it a process needs a right, which no capability gives to the user of a container on its host's network."""
_HEADER = """\
Cluster {cluster}, host {host} ({address}): exported by RedisForge, and run by whoever runs this file.
Start: docker compose up -d. The files belong to user {user}: chown -R {user}:{user} files data"""


def compose_text(host: ExportedHost, cluster: str) -> str:
    """compose.yaml of one host."""
    services: dict[str, Value] = {process.name: _service(process) for process in host.processes}
    document: dict[str, Value] = {"name": project_name(cluster), "services": services}
    header = _HEADER.format(cluster=cluster, host=host.name, address=host.address, user=ENGINE_USER)
    return to_yaml(document, header=header)


def project_name(cluster: str) -> str:
    """What compose calls the services of a cluster on one host."""
    return f"redisforge-{cluster}"


def low_port_setting(port: int) -> str:
    """What a host's kernel must be told before a container there may listen on a port below 1024."""
    return f"net.ipv4.ip_unprivileged_port_start={port}"


def _service(process: ExportedProcess) -> dict[str, Value]:
    network: Value = "host"
    if process.lowest_port < FIRST_FREE_PORT:
        setting = low_port_setting(process.lowest_port)
        network = Noted(network, f"It listens on a port below 1024, so this host needs:\nsysctl -w {setting}")
    service: dict[str, Value] = {
        "image": process.container.image,
        "container_name": f"redisforge-{process.cluster}-{process.name}",
        "user": f"{ENGINE_USER}:{ENGINE_USER}",
        "entrypoint": list(map(_literal, process.argv[:1])),
        "command": list(map(_literal, process.argv[1:])),
        "network_mode": network,
        "restart": "unless-stopped",
        "stop_grace_period": f"{process.stop_grace_s:.0f}s",
        "read_only": True,
        "tmpfs": [TMPFS, *([OPEN_HOME] if process.root.startswith("/root/") else [])],
        "security_opt": ["no-new-privileges:true"],
        "cap_drop": ["ALL"],
    }
    service |= _limits(process)
    service["ulimits"] = {"nofile": {"soft": process.open_files, "hard": process.open_files}}
    service["healthcheck"] = _health(process)
    service["labels"] = {f"{LABEL}.cluster": process.cluster, f"{LABEL}.unit": process.name}
    service["volumes"] = _volumes(process)
    return service


def _limits(process: ExportedProcess) -> dict[str, Value]:
    """As `up` gives them to a container: memory without swap on top, and logs that do not grow for ever."""
    container, limits = process.container, dict[str, Value]()
    if container.memory_bytes:
        limits |= {"mem_limit": container.memory_bytes, "memswap_limit": container.memory_bytes}
    if container.cpus:
        limits["cpus"] = container.cpus
    if container.log_bytes:
        kept = {"max-size": str(container.log_bytes), "max-file": str(container.log_files)}
        limits["logging"] = {"driver": "json-file", "options": kept}
    return limits


def _volumes(process: ExportedProcess) -> list[Value]:
    """Its own folder, its certificate and key, and nothing of the others; data in a folder of its name."""
    here = "./files"
    inside = [process.folder, *(f"{process.root}/tls/{name}" for name in ("ca.crt", *_own_files(process)))]
    volumes: list[Value] = [f"{here}{_literal(path.removeprefix(process.root))}:{_literal(path)}:ro" for path in inside]
    if process.data_path:
        volumes.append(f"./data/{process.name}:{_literal(process.data_path)}")
    return volumes


def _own_files(process: ExportedProcess) -> tuple[str, str]:
    return f"{process.name}.crt", f"{process.name}.key"


def _health(process: ExportedProcess) -> dict[str, Value]:
    address, port = process.ping
    if process.kind == "envoy":
        # There need be no HTTP client in the image; bash there is. Envoy takes no HTTP/1.0.
        test = (
            f"exec 3<>/dev/tcp/{address}/{port}; "
            "printf 'GET /ready HTTP/1.1\\r\\nHost: envoy\\r\\nConnection: close\\r\\n\\r\\n' >&3; "
            "head -n 1 <&3 | grep -q ' 200 '"
        )
        command = ["CMD", "bash", "-c", _literal(test)]
    else:
        tls, name = f"{process.root}/tls", process.name
        words = [
            f"{process.kind}-cli", "-h", address, "-p", str(port), "--user", process.monitor_user, "--no-auth-warning",
            "--tls", "--cacert", f"{tls}/ca.crt", "--cert", f"{tls}/{name}.crt", "--key", f"{tls}/{name}.key", "ping",
        ]  # fmt: skip
        password = f'REDISCLI_AUTH="$(cat {shlex.quote(process.folder)}/monitor.password)"'
        # A node that loads its data is not ill.
        command = ["CMD", "sh", "-c", _literal(f"{password} {shlex.join(words)} | grep -q -e PONG -e LOADING")]
    return {"test": command, "interval": "10s", "timeout": "5s", "retries": 3, "start_period": "30s"}


def _literal(text: str) -> str:
    """Compose expands `$NAME`; `$$` is a dollar sign."""
    return text.replace("$", "$$")
