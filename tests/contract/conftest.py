"""What the contract tests share: one real sshd for all that only need some host over SSH."""

from collections.abc import Iterator

import pytest

from ssh_server import SshServer, running


@pytest.fixture(scope="session")
def ssh_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with running(tmp_path_factory.mktemp("sshd")) as server:
        yield server
