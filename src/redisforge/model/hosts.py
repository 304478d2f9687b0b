"""How a host is reached. A host without such an access is this machine."""

from __future__ import annotations

import msgspec


class SshAccess(msgspec.Struct, frozen=True, kw_only=True):
    """How SSH gets to a host. What is empty or 0 is left to the user's ssh configuration, then to SSH's defaults."""

    address: str = ""
    """Where sshd is reached; empty: the host's own address."""
    port: int = 0
    """sshd's port; 0: what the ssh configuration says, else 22."""
    user: str = ""
    key_path: str = ""
    """A private key (absolute path on the operator's machine); empty: the agent's and the default keys."""
    jump: str = ""
    """`[user@]address[:port]` of the host to go through; empty: none."""
    use_config: bool = True
    """Whether ~/.ssh/config is read."""
    known_hosts_path: str = ""
    """A known_hosts file to go by instead of the user's own and RedisForge's; empty: these two."""
