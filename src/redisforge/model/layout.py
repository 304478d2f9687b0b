"""Where the files of a cluster lie. Paths only; nothing here touches a disk.

HOME/clusters/NAME/
  topology.json    what the last `up` declared, without secrets
  secrets.env      passwords (0600)
  lock             who operates on the cluster now
  lock.asked       who was last asked to stop (`lock release`)
  journal.jsonl    audit trail: one JSON line per step (0600); journal.jsonl.1 is the older part
  tls/             ca.crt ca.key and NAME.crt NAME.key per Unit
  units/NAME/      unit.json, configuration, data/, log, state.json
CACHE/             engines and Envoy, shared by all clusters
"""

from __future__ import annotations

from pathlib import PurePosixPath

import msgspec


class ClusterLayout(msgspec.Struct, frozen=True):
    """The paths of one cluster below its folder (absolute)."""

    folder: str

    def _path(self, *parts: str) -> str:
        return str(PurePosixPath(self.folder, *parts))

    @property
    def topology(self) -> str:
        """The effective topology of the last `up`."""
        return self._path("topology.json")

    @property
    def secrets(self) -> str:
        """Passwords in the .env convention."""
        return self._path("secrets.env")

    @property
    def lock(self) -> str:
        """The lock file."""
        return self._path("lock")

    @property
    def journal(self) -> str:
        """The audit trail."""
        return self._path("journal.jsonl")

    @property
    def tls(self) -> str:
        """The folder of certificates and keys."""
        return self._path("tls")

    @property
    def ca_certificate(self) -> str:
        """The certificate that clients trust."""
        return self._path("tls", "ca.crt")

    def certificate(self, unit_name: str) -> str:
        """The certificate of a Unit (or of `operator`)."""
        return self._path("tls", f"{unit_name}.crt")

    def key(self, unit_name: str) -> str:
        """The private key of a Unit (or of `operator`)."""
        return self._path("tls", f"{unit_name}.key")

    @property
    def units(self) -> str:
        """The folder of all Units."""
        return self._path("units")

    def unit(self, unit_name: str) -> str:
        """The folder of one Unit."""
        return self._path("units", unit_name)
