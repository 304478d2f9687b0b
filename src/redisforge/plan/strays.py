"""Units that run though the cluster does not have them: a host that was lost may come back with its processes.

Nothing stops them by itself. What only they have cannot be known, and who declares less than there is may have erred.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from redisforge.model.facts import Facts, Stray
from redisforge.model.report import Problem


def strays(facts: Facts) -> Iterator[Problem]:
    """Each of them, with the command that stops it. Without a node that answers nobody can say who is a member.

    A node that a member still knows is none: another machine may have added it, or a removal is not done.
    """
    members = {peer.id for node in facts.reachable_nodes() for peer in node.peers}
    if not members:
        return
    for stray in facts.strays:
        if stray.unit.node_id not in members:
            yield _problem(stray)


def _problem(stray: Stray) -> Problem:
    what = f"runs on {stray.host}, and the cluster does not have it there"
    stop = f"`{shlex.join(stray.stop_command)}` on {stray.host} stops it and deletes nothing"
    if stray.unit.was_member:
        what += ": no node knows it"
    else:  # an Envoy, which no node knows anyhow, or a node before its first MEET: another machine may just add it
        stop = f"unless it was added from another machine, {stop}"
    return Problem(severity="warning", where=stray.unit.name, what=what, next_step=stop)
