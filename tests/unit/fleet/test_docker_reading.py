"""What Docker says of a container, as the facts of a Unit."""

from __future__ import annotations

import json
from typing import Any

import pytest

from redisforge.fleet.docker_reading import read_units
from redisforge.model.facts import UnitState

NEVER = "0001-01-01T00:00:00Z"


def a_container(status: str, **state: Any) -> str:
    told = {"Status": status, "Pid": 0, "ExitCode": 0, "Error": "", "OOMKilled": False, "StartedAt": NEVER, **state}
    return f"container\tredis-1\t{json.dumps(told)}\t{{}}\t0\t1 2 unless-stopped\n"


@pytest.mark.parametrize(
    ("container", "state", "last_exit"),
    [
        (a_container("created"), UnitState.STOPPED, ""),
        # Docker does not try again what it could not start at first: whoever finds it has to.
        (a_container("created", Error="error setting rlimit"), UnitState.STOPPED, "error setting rlimit"),
        (a_container("restarting", ExitCode=1, StartedAt="2026-01-01T00:00:00Z"), UnitState.BACKOFF, "status 1"),
        (a_container("exited", ExitCode=137, StartedAt="2026-01-01T00:00:00Z"), UnitState.STOPPED, "status 137"),
        (a_container("running", Pid=7, StartedAt="2026-01-01T00:00:00Z"), UnitState.RUNNING, ""),
    ],
    ids=["created", "refused", "restarting", "exited", "running"],
)
def test_the_state_of_a_container(container: str, state: UnitState, last_exit: str) -> None:
    facts = read_units(container)["redis-1"]
    assert facts.state is state
    assert last_exit in facts.last_exit
    assert bool(facts.last_exit) is bool(last_exit)
