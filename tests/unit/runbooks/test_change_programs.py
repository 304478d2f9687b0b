"""What a verb does before its first phase, and tells of it."""

from __future__ import annotations

import pytest
from test_status_report import TOPOLOGY

from redisforge.fleet.fake import FakeRuntime
from redisforge.model.facts import Facts
from redisforge.model.layout import ClusterLayout
from redisforge.model.topology import Credentials
from redisforge.runbooks.change import ready_units
from redisforge.runbooks.cluster import Cluster
from redisforge.runbooks.units import Programs


@pytest.mark.parametrize(("takes_s", "told"), [(0.1, []), (0.8, ["look at the programs: 1.60 s"])])
def test_programs_that_take_long_to_answer_are_told_of(
    monkeypatch: pytest.MonkeyPatch, takes_s: float, told: list[str]
) -> None:
    now_s = 5.0

    def nothing(*_: object) -> None:
        return None

    def answer(*_: object) -> str:
        nonlocal now_s
        now_s += takes_s
        return "a program"

    def build(*given: object) -> dict[str, object]:
        return {"programs": given[-1]}

    for name in ("check_space", "check_certificate_names", "check_ports"):
        monkeypatch.setattr(f"redisforge.runbooks.change.{name}", nothing)
    monkeypatch.setattr("redisforge.security.certificates.ensure_certificates", nothing)
    for name in ("ensure_engine", "ensure_envoy"):
        monkeypatch.setattr(f"redisforge.runbooks.change.{name}", answer)
    monkeypatch.setattr("redisforge.runbooks.change.build_units", build)
    monkeypatch.setattr("redisforge.runbooks.change.time.monotonic", lambda: now_s)
    said: list[str] = []
    cluster = Cluster(TOPOLOGY, ClusterLayout("/nowhere"), Credentials({}), {}, FakeRuntime())
    units, programs = ready_units(cluster, Facts(observed_at_s=1.0), said.append)
    assert said == told
    assert programs == Programs("a program", "a program")  # pyright: ignore[reportArgumentType]
    assert units == {"programs": programs}, "they are asked once, and used for what is written in the end too"
