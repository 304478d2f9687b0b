"""What is said of a budget that was exceeded when there was nothing left to stop."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_status_report import TOPOLOGY

from redisforge.fleet.fake import FakeRuntime
from redisforge.fleet.journal import Journal
from redisforge.model.layout import ClusterLayout
from redisforge.model.report import ProbeReport
from redisforge.model.topology import Credentials
from redisforge.runbooks.cluster import Cluster
from redisforge.runbooks.watch import Allowance, Watch

SEEN = ProbeReport(
    longest_gap_ms=135.4, errors=0, error_window_ms=0.0, writes=10, reads=10, lost=0, seconds=1.0
)  # fmt: skip


@pytest.mark.parametrize(
    ("allowance", "says"),
    [
        (Allowance(probe=True), ()),
        (Allowance(abort_over_ms=136), ()),
        (
            Allowance(abort_over_ms=50),
            ("clients had to wait 135 ms, and 50 ms were allowed: it was done before it could be stopped",),
        ),
    ],
)
def test_a_budget_that_was_exceeded_at_the_end_is_told(
    tmp_path: Path, allowance: Allowance, says: tuple[str, ...]
) -> None:
    cluster = Cluster(TOPOLOGY, ClusterLayout(str(tmp_path)), Credentials({}), {}, FakeRuntime())
    watch = Watch(cluster, allowance, Journal(tmp_path / "journal", verb="failover", user="ann"), print)
    assert watch.notices == ()
    watch.report = SEEN
    assert watch.notices == says
