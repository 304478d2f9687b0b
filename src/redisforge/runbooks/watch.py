"""What clients notice of a verb while it works (`--probe`), and how much of it they are to bear (`--abort-over`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from redisforge.fleet.journal import Journal
from redisforge.model.report import ProbeReport
from redisforge.runbooks.cluster import Cluster
from redisforge.runbooks.run import Progress

if TYPE_CHECKING:
    from redisforge.runbooks.client_probe import ClientProbe


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """`probe`: watch what clients see. `abort_over_ms`: stop at the next safe point when that is worse."""

    probe: bool = False
    abort_over_ms: int | None = None


class Watch:
    """The probe of a verb, if it is wanted; however the verb ends, what clients noticed is told and kept."""

    def __init__(self, cluster: Cluster, allowance: Allowance, journal: Journal, progress: Progress) -> None:
        self._limit_ms = allowance.abort_over_ms
        self._journal = journal
        self._progress = progress
        self._probe: ClientProbe | None = None
        if allowance.probe or allowance.abort_over_ms is not None:
            from redisforge.runbooks.client_probe import ClientProbe

            self._probe = ClientProbe(cluster)
        self.report: ProbeReport | None = None

    def check(self) -> None:
        """For safe points. Raises AbortedError."""
        if self._probe and self._limit_ms is not None:
            self._probe.check_budget(self._limit_ms)

    @property
    def notices(self) -> tuple[str, ...]:
        """That clients had to wait for longer than was allowed, where nothing was left to stop."""
        if self.report is None or self._limit_ms is None or self.report.longest_gap_ms <= self._limit_ms:
            return ()
        return (
            f"clients had to wait {self.report.longest_gap_ms:.0f} ms, and {self._limit_ms} ms were allowed: "
            "it was done before it could be stopped",
        )

    async def __aenter__(self) -> Watch:
        if self._probe:
            await self._probe.__aenter__()
        return self

    async def __aexit__(self, *ended: Any) -> None:
        if self._probe is None:
            return
        try:
            self.report = await self._probe.finish()
            self._journal.write("probe", what=str(self.report), result="ok", seconds=self.report.seconds)
            if ended[0]:  # else the verb's report says it
                self._progress(str(self.report))
        finally:
            await self._probe.__aexit__(*ended)
