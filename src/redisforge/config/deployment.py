"""What `redisforge deploy` reads of .env beside the names of environment.py: where this host's node is, and the others.

In the usual convention every node has a host of its own, and each host has a .env that differs in one line:
REDIS_CLUSTER_ANNOUNCE_IP. Names are resolved by who starts things (runbooks/deploy.py); here they are only read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from redisforge.config.environment import PASSWORD_VARIABLES, Variable
from redisforge.config.messages import shown
from redisforge.config.problems import ConfigProblem
from redisforge.config.values import NAME_PATTERN
from redisforge.model.topology import Role, UserRole

MOST_PLACES = 100
"""Masters, and replicas, that a .env can name."""
DEFAULT_NAME = "redisforge"
DEFAULT_PORT = 6379
BUS_DISTANCE = 10_000
TLS_FOLDER = "config/tls/prod"
"""Where certificates are looked for, beside .env."""
DERIVED = "REDIS_HANDOFF_PASS"
"""The convention does not know it: without it the password follows from REDIS_REQUIREPASS, on all hosts the same."""

VARIABLES: Mapping[str, str] = {
    "PROJECT_NAME": f"What the cluster is called here. Default: {DEFAULT_NAME}.",
    "REDIS_CLUSTER_ANNOUNCE_IP": "The address of this host, or its name: the node listens there and is known by it.",
    "REDIS_PORT": f"The node's port (TLS). Default: {DEFAULT_PORT}.",
    "REDIS_CLUSTER_BUS_PORT": "Its cluster bus port. Default: REDIS_PORT + 10000.",
    "REDIS_CLUSTER_ANNOUNCE_PORT": "REDIS_PORT, if it is set: there is no other network between.",
    "REDIS_CLUSTER_ANNOUNCE_BUS_PORT": "REDIS_CLUSTER_BUS_PORT, if it is set.",
    "REDIS_MASTER_n_HOST, REDIS_MASTER_n_PORT": "The n-th master, n from 1. Default of the port: REDIS_PORT.",
    "REDIS_REPLICA_n_HOST, REDIS_REPLICA_n_PORT": "The n-th replica.",
    "REDIS_TLS_CA_PATH": f"The CA of all hosts. Default: {TLS_FOLDER}/ca.crt beside .env.",
    "REDIS_TLS_CERT_PATH, REDIS_TLS_KEY_PATH": "This host's certificate and key. Default: server.crt and server.key "
    "beside that.",
    "ENVOY_TLS_CERT_PATH, ENVOY_TLS_KEY_PATH": "The same for Envoy. Default: those above.",
    "ENVOY_TLS_ENABLED": "true: Envoy serves nothing without TLS.",
    "ENVOY_LISTEN_ADDRESS": "Where Envoy listens. Default: REDIS_CLUSTER_ANNOUNCE_IP if this host has that address, "
    "else the address from which this host reaches the first master.",
}
"""Names and their meaning, as the reference page has them."""

_PLACE = re.compile(r"REDIS_(MASTER|REPLICA)_([1-9][0-9]?|100)_(HOST|PORT)")
_SINGLE = tuple(name for names in VARIABLES for name in names.split(", ") if "_n_" not in name)
_OLD_ADVICE = "Set it in .env, the same on every host."


class NamedPlace(msgspec.Struct, frozen=True):
    """A node that .env names: its variable, its host (a name or an address), its port, its role."""

    variable: str
    host: str
    port: int
    role: Role


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """What .env says of this host and the others. Paths are absolute."""

    name: str
    announce: str
    port: int
    bus_port: int
    listen: str
    places: tuple[NamedPlace, ...]
    ca_path: str
    certificate_path: str
    key_path: str


def deployment_names() -> tuple[str, ...]:
    """All names that mean something here."""
    places = (
        f"REDIS_{role}_{number}_{what}"
        for role in ("MASTER", "REPLICA")
        for number in range(1, MOST_PLACES + 1)
        for what in ("HOST", "PORT")
    )
    return (*_SINGLE, *PASSWORD_VARIABLES, *places)


def read_deployment(
    variables: Mapping[str, Variable], folder: Path, *, is_envoy: bool
) -> tuple[Deployment, tuple[ConfigProblem, ...]]:
    """The deployment, and everything that is wrong or missing. `folder` (absolute) is where .env lies."""
    reader = _Reader(variables)
    port = reader.port("REDIS_PORT", DEFAULT_PORT)
    bus_port = reader.port("REDIS_CLUSTER_BUS_PORT", port + BUS_DISTANCE)
    places = tuple(_places(reader, port))
    kind = "ENVOY" if is_envoy else "REDIS"
    own = {what: reader.path(f"{kind}_TLS_{what}_PATH", "", folder) for what in ("CERT", "KEY")}
    deployment = Deployment(
        name=reader.name(),
        announce=reader.text("REDIS_CLUSTER_ANNOUNCE_IP"),
        port=port,
        bus_port=bus_port,
        listen=reader.text("ENVOY_LISTEN_ADDRESS"),
        places=places,
        ca_path=reader.path("REDIS_TLS_CA_PATH", f"{TLS_FOLDER}/ca.crt", folder),
        certificate_path=own["CERT"] or reader.path("REDIS_TLS_CERT_PATH", f"{TLS_FOLDER}/server.crt", folder),
        key_path=own["KEY"] or reader.path("REDIS_TLS_KEY_PATH", f"{TLS_FOLDER}/server.key", folder),
    )
    reader.refuse_translation("REDIS_CLUSTER_ANNOUNCE_PORT", port)
    reader.refuse_translation("REDIS_CLUSTER_ANNOUNCE_BUS_PORT", bus_port)
    if is_envoy:
        reader.need(["REDIS_MASTER_1_HOST"], "Envoy asks the masters for the cluster's slots. Name them in .env.")
        if (flag := reader.text("ENVOY_TLS_ENABLED").lower()) and flag not in ("true", "yes", "1", "on"):
            reader.complain("ENVOY_TLS_ENABLED", "cannot be off: nothing is served without TLS", "Remove the line.")
    else:
        reader.need(["REDIS_CLUSTER_ANNOUNCE_IP"], "It is the address of this very host. Set it in this host's .env.")
    reader.need([name for name in PASSWORD_VARIABLES if name != DERIVED], _OLD_ADVICE)
    return deployment, tuple(reader.problems)


def _places(reader: _Reader, default_port: int) -> Iterable[NamedPlace]:
    named = [match for name in reader.variables if (match := _PLACE.fullmatch(name)) and match[3] == "HOST"]
    for role, number in sorted((match[1], int(match[2])) for match in named):
        variable = f"REDIS_{role}_{number}_HOST"
        port = reader.port(f"REDIS_{role}_{number}_PORT", default_port)
        if host := reader.text(variable):
            yield NamedPlace(variable, host, port, Role.MASTER if role == "MASTER" else Role.REPLICA)


class _Reader:
    """Reads variables one by one and collects what is wrong."""

    def __init__(self, variables: Mapping[str, Variable]) -> None:
        self.variables = variables
        self.problems: list[ConfigProblem] = []

    def text(self, name: str) -> str:
        found = self.variables.get(name)
        return found.value.strip() if found else ""

    def complain(self, name: str, what: str, advice: str, *, is_secret: bool = False) -> None:
        found = self.variables.get(name)
        self.problems.append(ConfigProblem(found.where if found else ".env", name, what, advice, is_secret=is_secret))

    def port(self, name: str, default: int) -> int:
        text = self.text(name)
        if not text and default <= 65535:
            return default
        if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < 65536:
            what = f"must be a port from 1 to 65535 (got {shown(text or default)})"
            self.complain(name, what, "Correct it." if text else "Set it: the default would be too high.")
            return DEFAULT_PORT
        return int(text)

    def path(self, name: str, default: str, folder: Path) -> str:
        text = self.text(name) or default
        return str(folder / Path(text).expanduser()) if text else ""

    def name(self) -> str:
        text = self.text("PROJECT_NAME") or DEFAULT_NAME
        if not re.fullmatch(NAME_PATTERN, text):
            what = f"must be at most 31 lower-case letters, digits and hyphens (got {shown(text)})"
            self.complain("PROJECT_NAME", what, "Choose another name.")
            return DEFAULT_NAME
        return text

    def need(self, names: Iterable[str], advice: str) -> None:
        for name in names:
            role = PASSWORD_VARIABLES.get(name)
            if role and name in self.variables:
                continue  # whether it is good enough, environment.py says
            if not self.text(name):
                what = f"is missing: the password of the {_who(role)}" if role else "is missing"
                self.complain(name, what, advice, is_secret=role is not None)

    def refuse_translation(self, name: str, port: int) -> None:
        if (text := self.text(name)) and text != str(port):
            what = f"is {shown(text)}, and the node listens on {port}: ports are not translated here"
            self.complain(name, what, "Remove it, or set the same port.")


def _who(role: UserRole) -> str:
    return f"{role} user"
