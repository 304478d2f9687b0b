"""Which commands a real Envoy passes on, refuses, or answers in its own way: the facts behind docs/clients.md."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from envoy_stack import Stack

from redisforge.redis.connection import ReplyError
from redisforge.render.envoy_listeners import KEYED_COMMANDS, REDIRECTED_COMMANDS

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with Stack(tmp_path_factory.mktemp("commands")) as started:
        yield started


UNKNOWN_TO_ENVOY = (
    "BLPOP k 1", "BLMOVE a b LEFT LEFT 1", "BZPOPMIN k 1", "BLMPOP 1 1 k LEFT", "XREAD STREAMS k 0",
    "XREADGROUP GROUP g c STREAMS k >", "SUBSCRIBE c", "PSUBSCRIBE c*", "SSUBSCRIBE c", "SPUBLISH c m",
    "PUBSUB CHANNELS", "COMMAND", "DBSIZE", "WAIT 1 1", "ACL WHOAMI", "LATENCY LATEST", "MEMORY USAGE k",
    "FUNCTION LIST", "MONITOR", "READONLY", "RESET", "MOVE k 1",
)  # fmt: skip
"""The list of docs/clients.md: these belong to another endpoint, or straight to a node."""


@pytest.mark.parametrize("command", UNKNOWN_TO_ENVOY)
@pytest.mark.parametrize("endpoint", ["primary", "primary-resp3"])
async def test_commands_that_envoy_does_not_know(stack: Stack, endpoint: str, command: str) -> None:
    with pytest.raises(ReplyError) as refused:
        await stack.endpoint_call(endpoint, *command.split())
    assert "unknown command" in refused.value.why


async def test_the_page_of_clients_names_each_of_them() -> None:
    page = _clients_page()
    names = {command.split()[0] for command in UNKNOWN_TO_ENVOY}
    assert not [name for name in sorted(names) if f"`{name}`" not in page]
    added = [name.upper() for name in (*KEYED_COMMANDS, *REDIRECTED_COMMANDS) if not name.startswith("v")]
    assert not [name for name in added if f"`{name}`" not in page]


def _clients_page() -> str:
    return (Path(__file__).parents[2] / "docs" / "clients.md").read_text()


MADE_KNOWN = (
    ("SADD {@1}s x y", 2), ("SADD {@1}t y", 1), ("SINTERCARD 2 {@1}s {@1}t", 1),
    ("ZADD {@2}z 1 a 2 b", 2), ("ZINTERCARD 2 {@2}z {@2}z", 2), ("ZMPOP 1 {@2}z MIN COUNT 2", None),
    ("RPUSH {@3}l a b", 2), ("LMPOP 1 {@3}l LEFT COUNT 2", None),
    ("XADD {@4}x 1-1 f v", "1-1"), ("XGROUP CREATE {@4}x g 0", "OK"), ("XINFO STREAM {@4}x", None),
    ("XCFGSET {@4}x IDMP-DURATION 100", "OK"), ("XSETID {@4}x 2-2", "OK"),
    ("XDELEX {@4}x IDS 1 1-1", [1]), ("XACKDEL {@4}x g IDS 1 1-1", None),
    ("MSETEX 2 {@5}a ohmytext {@5}b mynewtext EX 100", 1), ("LCS {@5}a {@5}b LEN", 6),
    ("EVAL_RO return(redis.call('GET',KEYS[1])) 1 {@5}a", "ohmytext"),
    ("EXPIRETIME {@5}c", -2), ("PEXPIRETIME {@5}c", -2), ("DIGEST {@5}a", None), ("DELEX {@5}a", 1),
    ("HSETEX {@6}h FIELDS 1 f v", 1), ("HGETEX {@6}h FIELDS 1 f", ["v"]), ("HGETDEL {@6}h FIELDS 1 f", ["v"]),
    ("VADD {@7}v VALUES 2 1 2 e", None), ("VSIM {@7}v VALUES 2 1 2", ["e"]), ("VCARD {@7}v", 1), ("VDIM {@7}v", 2),
    ("VEMB {@7}v e", None), ("VLINKS {@7}v e", None), ("VINFO {@7}v", None), ("VISMEMBER {@7}v e", None),
    ("VRANDMEMBER {@7}v", "e"), ("VRANGE {@7}v - +", ["e"]), ("VSETATTR {@7}v e {}", None),
    ("VGETATTR {@7}v e", "{}"), ("VREM {@7}v e", None), ("FCALL none 0", "ERR Function not found"),
    ("FCALL_RO none 0", "ERR Function not found"),
    ("EVALSHA_RO 0000000000000000000000000000000000000000 0", "NOSCRIPT"),
)  # fmt: skip
"""Every entry of custom_commands, with the reply where it is the same in both protocols."""


@pytest.mark.parametrize("endpoint", ["primary", "primary-resp3"])
async def test_commands_that_the_configuration_adds(stack: Stack, endpoint: str) -> None:
    for command, expected in MADE_KNOWN:
        words = command.replace("@", endpoint).split()
        try:
            reply = await stack.endpoint_call(endpoint, *words)
        except ReplyError as error:
            reply = error.why
            assert isinstance(expected, str), f"{command}: {reply}"
            assert reply.startswith(expected), f"{command}: {reply}"
            continue
        if expected is not None:
            assert reply == expected, command


async def test_every_added_command_is_tried() -> None:
    tried = {command.split()[0].lower() for command, _ in MADE_KNOWN}
    assert {*KEYED_COMMANDS, *REDIRECTED_COMMANDS} <= tried


async def test_scan_through_envoy_is_not_what_clients_expect(stack: Stack) -> None:
    """Why docs/clients.md sends SCAN straight to the nodes: the shards' replies come back in one row."""
    reply = await stack.endpoint_call("primary", "SCAN", "0")
    assert len(reply) == 2 * stack.topology.shards
