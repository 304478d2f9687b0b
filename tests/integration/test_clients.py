"""The printed snippets, run as they are: redis-cli and ioredis (npm) against real endpoints."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from envoy_stack import Stack, binary

from redisforge.render.connect import connection

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

CLIENTS = Path(__file__).parent.parent / "clients"
ENDPOINTS = ("primary", "primary-resp3", "reader", "pubsub")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with Stack(tmp_path_factory.mktemp("clients")) as started:
        yield started


async def run(*argv: str, cwd: Path, environment: dict[str, str] | None = None) -> str:
    """Run a command to its end and return its output; a non-zero status fails with that output."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(120):
        output, _ = await process.communicate()
    text = output.decode(errors="replace")
    assert process.returncode == 0, f"{argv[0]} exited with {process.returncode}:\n{text}"
    return text


def tool(name: str) -> str:
    """The path of a program that this test needs; a machine without it fails with what to install."""
    path = shutil.which(name)
    assert path, f"{name} is not on PATH: the client tests need Node.js >= 20 with npm"
    return path


def snippet(stack: Stack, endpoint: str, output_format: str) -> str:
    return connection(*stack.url_parts(endpoint), output_format).reveal()


@pytest.mark.parametrize("endpoint", ["primary", "primary-resp3"])
async def test_the_redis_cli_line_works_as_it_is(stack: Stack, tmp_path: Path, endpoint: str) -> None:
    redis_cli = tmp_path / "bin" / "redis-cli"
    redis_cli.parent.mkdir()
    redis_cli.symlink_to(binary("redis-cli"))
    path = {"PATH": f"{redis_cli.parent}:{os.environ['PATH']}"}
    line = snippet(stack, endpoint, "redis-cli")

    set_output = await run("sh", "-c", f"{line} SET cli:{endpoint} 'a b'", cwd=tmp_path, environment=path)
    get_output = await run("sh", "-c", f"{line} GET cli:{endpoint}", cwd=tmp_path, environment=path)

    assert set_output.strip() == "OK"
    assert get_output.strip() == "a b"


async def test_the_env_format_is_a_file_that_a_shell_sources(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "env").write_text(snippet(stack, "primary", "env"))
    names = ("REDIS_PASSWORD", "REDIS_CA_FILE", "REDIS_URL")
    script = ". ./env; printf '%s\\n' " + " ".join(f'"${name}"' for name in names)

    output = await run("sh", "-c", script, cwd=tmp_path)

    _, _, password, ca_path = stack.url_parts("primary")
    assert output.splitlines() == [password.reveal(), ca_path, snippet(stack, "primary", "url")]


async def test_the_ioredis_snippets_work_as_they_are(stack: Stack, tmp_path: Path) -> None:
    for name in ("package.json", "ioredis_check.js"):
        shutil.copy(CLIENTS / name, tmp_path)
    install = ("install", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund")
    await run(tool("npm"), *install, cwd=tmp_path)
    connections = [
        f"connections[{json.dumps(name)}] = (() => {{\n{snippet(stack, name, 'ioredis')}\nreturn redis;\n}})();"
        for name in ENDPOINTS
    ]
    main = tmp_path / "main.js"
    main.write_text(
        "\n".join(("const connections = {};", *connections, 'require("./ioredis_check.js")(connections);', ""))
    )

    output = await run(tool("node"), "--unhandled-rejections=strict", str(main), cwd=tmp_path)

    assert "ioredis: all passed" in output
