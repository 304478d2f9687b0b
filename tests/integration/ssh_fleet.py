"""Three hosts over SSH and a cluster on them: each host is an sshd of its own on this machine."""

from __future__ import annotations

from pathlib import Path

from cluster_tool import Cluster

from ssh_server import SshServer


class Fleet:
    """Three hosts and a cluster on them; `folder_of` is what RedisForge has on a host.

    `spare` are hosts more, which are ready and not declared: `entries` has what redisforge.yaml would say of each.
    """

    def __init__(self, folder: Path, *, spare: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.servers = {name: SshServer(folder / f"sshd-{name}") for name in ("h1", "h2", "h3", *spare)}
        home = folder / "operator" / "home"
        home.mkdir(parents=True)
        known: list[str] = []
        self.entries: dict[str, dict[str, object]] = {}
        for number, (name, server) in enumerate(self.servers.items(), 1):
            server.trust()
            access = server.access()
            known.append(Path(access.known_hosts_path).read_text())
            way = {"ssh_address": access.address, "ssh_port": access.port, "ssh_key": access.key_path}
            if access.user:
                way["ssh_user"] = access.user
            place = {"name": name, "address": f"127.0.0.{10 + number}", "zone": f"zone-{number}", "ssh": True}
            self.entries[name] = {**place, **way, "folder": str(self.folder_of(name))}
        (home / "known_hosts").write_text("".join(known))
        hosts = [entry for name, entry in self.entries.items() if name not in spare]
        self.cluster = Cluster(folder / "operator", home=home, hosts=hosts)

    def folder_of(self, name: str) -> Path:
        return self.folder / f"host-{name}"

    def close(self) -> None:
        self.cluster.run("down", "--purge", "--yes")
        self.cluster.ports.close()
        for server in self.servers.values():
            server.close()
