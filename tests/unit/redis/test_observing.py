"""What answers of a node mean."""

from __future__ import annotations

import hiredis
import pytest

from redisforge.redis.connection import Reply
from redisforge.redis.observe import read_refusal

DENIED = "User readonly_user has no permissions to run the 'ping' command"


@pytest.mark.parametrize(
    ("answers", "refuses"),
    [
        ([], None),
        (["OK"], False),
        ([DENIED], True),
        (["OK", DENIED], True),
        ([hiredis.ReplyError("ERR User 'readonly_user' not found")], None),
        (["OK", hiredis.ReplyError("LOADING Redis is loading the dataset in memory")], None),
    ],
)
def test_a_node_refuses_reads_when_a_reading_user_may_not_ping(answers: list[Reply], refuses: bool | None) -> None:
    assert read_refusal(answers) is refuses
