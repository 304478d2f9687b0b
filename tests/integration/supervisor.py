"""A stand-in for systemd: `systemctl` that stops and starts the servers of a test, for machines that systemd has not
booted. It is asked by its own command line alone, as systemd is."""

from __future__ import annotations

import os
import sys
from pathlib import Path

PROGRAM = """\
#!/bin/sh
# systemctl start|stop UNIT, systemctl show --property=MainPID --value UNIT; servers of the folder UNIT below {folder}.
# Which program they are is read at each start, as with a package that was installed meanwhile.
set -eu
for unit; do :; done
folder={folder}/$unit
pid=$(cat "$folder/pid" 2>/dev/null || echo 0)
alive() {{ case $(sed 's/.*) //' "/proc/$pid/stat" 2>/dev/null) in '' | Z*) false ;; *) true ;; esac; }}
echo "$1 $unit" >>{folder}/asked
case $1 in
  show) if alive; then echo "$pid"; else echo 0; fi ;;
  stop) if alive; then kill "$pid"; while alive; do sleep 0.05; done; fi; echo 0 >"$folder/pid" ;;
  start)
    alive && exit 0
    setsid "$(cat {folder}/server)" "$folder/redis.conf" >/dev/null 2>&1 &
    echo $! >"$folder/pid" ;;
esac
"""


def install(folder: Path, servers: Path, server: str) -> dict[str, str]:
    """Put `systemctl` into `folder`; returns the environment with it in front of PATH."""
    folder.mkdir()
    install_server(servers, server)
    program = folder / "systemctl"
    program.write_text(PROGRAM.format(folder=servers))
    program.chmod(0o755)
    return {"PATH": f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"}


def install_server(servers: Path, server: str) -> None:
    """What starts from now on is this program."""
    (servers / "server").write_text(server)
