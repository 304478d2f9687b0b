"""Formation commands, word by word as Redis documents them."""

from __future__ import annotations

import pytest

from redisforge.model.slots import SlotRange
from redisforge.model.topology import RedisNode, Role
from redisforge.redis import commands

OTHER = RedisNode("redis-2", "b", "10.0.0.2", "b", 7001, 27001, 1, Role.MASTER)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (commands.set_config_epoch(3), "CLUSTER SET-CONFIG-EPOCH 3"),
        (commands.add_slots((SlotRange(0, 99),)), "CLUSTER ADDSLOTSRANGE 0 99"),
        (commands.add_slots((SlotRange(0, 9), SlotRange(12, 12))), "CLUSTER ADDSLOTSRANGE 0 9 12 12"),
        (commands.meet(OTHER), "CLUSTER MEET 10.0.0.2 7001 27001"),
        (commands.replicate("ab" * 20), f"CLUSTER REPLICATE {'ab' * 20}"),
        (commands.failover("handover"), "CLUSTER FAILOVER"),
        (commands.failover("force"), "CLUSTER FAILOVER FORCE"),
        (commands.failover("takeover"), "CLUSTER FAILOVER TAKEOVER"),
        (commands.forget("ab" * 20), f"CLUSTER FORGET {'ab' * 20}"),
    ],
)
def test_a_command_is_these_words(command: tuple[str, ...], words: str) -> None:
    assert command == tuple(words.split())
