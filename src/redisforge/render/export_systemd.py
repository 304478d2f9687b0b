"""Units of systemd for a cluster that is run without RedisForge. Pure.

Every directive: systemd.service(5), systemd.exec(5), systemd.unit(5). What hardens the service is listed and scored by
`systemd-analyze security`.
"""

from __future__ import annotations

import shlex

from redisforge.model.exported import ExportedHost, ExportedProcess

SYSTEM_USER = "redisforge"
"""Who runs the processes; install.sh makes it."""
_FIRST_FREE_PORT = 1024

_HARDENING = """\
# It may write its own data and nothing else, gain no privilege, and reach nothing but the network.
NoNewPrivileges=yes
ProtectSystem=strict
{home}PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RemoveIPC=yes
SystemCallArchitectures=native
{capabilities}UMask=0077
"""


def unit_name(process: ExportedProcess) -> str:
    """The file's name."""
    return f"redisforge-{process.cluster}-{process.name}.service"


def unit_text(process: ExportedProcess) -> str:
    """The unit file of one process."""
    what = "Envoy" if process.kind == "envoy" else f"{process.kind.capitalize()} node"
    capability = "CAP_NET_BIND_SERVICE" if process.lowest_port < _FIRST_FREE_PORT else ""
    capabilities = f"CapabilityBoundingSet={capability}\nAmbientCapabilities={capability}\n"
    # Where the cluster's folder lies below a home, that home has to stay visible.
    home = "" if process.root.startswith(("/home/", "/root/")) else "ProtectHome=yes\n"
    writable = f"ReadWritePaths={_path(process.data_path)}\n" if process.data_path else ""
    # Redis compiles nothing at run time; Envoy's Lua and Wasm may.
    memory = "" if process.kind == "envoy" else "MemoryDenyWriteExecute=yes\n"
    return (
        f"# {process.name} of cluster {process.cluster}: exported by RedisForge.\n"
        "[Unit]\n"
        f"Description={what} {process.name} of cluster {process.cluster}\n"
        "After=network-online.target\n"
        "Wants=network-online.target\n"
        "# It is tried again for as long as it takes.\n"
        "StartLimitIntervalSec=0\n"
        "\n"
        "[Service]\n"
        "Type=exec\n"
        f"User={SYSTEM_USER}\n"
        f"Group={SYSTEM_USER}\n"
        f"WorkingDirectory={(process.data_path or process.folder).replace('%', '%%')}\n"
        f"ExecStart={' '.join(_word(word) for word in process.argv)}\n"
        "Restart=on-failure\n"
        "RestartSec=1\n"
        "# It stops by itself once its data is on disk.\n"
        f"TimeoutStopSec={process.stop_grace_s:.0f}\n"
        f"LimitNOFILE={process.open_files}\n"
        "\n"
        f"{_HARDENING.format(home=home, capabilities=capabilities)}"
        f"{memory}"
        f"{writable}"
        "\n"
        "[Install]\n"
        "WantedBy=multi-user.target\n"
    )


def install_script(host: ExportedHost, cluster: str, root: str) -> str:
    """What puts the exported folder in place on its host and starts everything; it can be run again."""
    units = " ".join(unit_name(process) for process in host.processes)
    folders = [shlex.quote(process.data_path) for process in host.processes if process.data_path]
    data = "".join(f'install -d -o "$user" -g "$user" -m 700 {folder}\n' for folder in folders)
    return f"""\
#!/bin/sh
# Puts cluster {cluster} in place on {host.name} ({host.address}) and starts it. Run it as root, from anywhere.
# It can be run again: it keeps data, and restarts nothing that runs.
set -eu
cd "$(dirname "$0")"
user={SYSTEM_USER}
root={shlex.quote(root)}

getent passwd "$user" >/dev/null || useradd --system --home-dir "$root" --shell /usr/sbin/nologin "$user"
install -d -o "$user" -g "$user" -m 700 "$root"
cp -R files/. "$root/"
chown -R "$user:$user" "$root"
{data}install -m 644 systemd/*.service /etc/systemd/system/
systemctl daemon-reload
systemctl enable --now {units}
systemctl --no-pager --lines=0 status {units}
"""


def _word(text: str) -> str:
    """A word of a command line: systemd expands `%` and `$`, and takes quotes and backslashes (systemd.syntax(7))."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if any(character in escaped for character in " \t\"'\\;") else escaped


def _path(text: str) -> str:
    """A path in a list of paths. (WorkingDirectory takes one, as it is.)"""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"' if " " in escaped else escaped
