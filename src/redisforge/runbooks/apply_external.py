"""`apply-config` of a cluster that somebody else runs: what redisforge.yaml itself names, by CONFIG SET and REWRITE."""

from __future__ import annotations

from msgspec.structs import replace

from redisforge.model.facts import Facts
from redisforge.model.steps import Phase
from redisforge.model.topology import Topology
from redisforge.plan.apply_config import left_alone
from redisforge.plan.apply_external import EXTERNAL_VERBS, ApplyExternal, apply_external_phase, not_saved, words
from redisforge.plan.predict import Planner
from redisforge.plan.ready import refuse_silent
from redisforge.plan.starting import Wishes
from redisforge.render.settings import SECRET_DIRECTIVES
from redisforge.runbooks.change import Verb


def external_settings_verb(recorded: Topology, declared: Topology) -> Verb:
    """Bring the nodes to the settings of `declared`, as far as running servers take them.

    What they were told is recorded when all of it stands in the nodes' files, and not before.
    """
    settings = dict(declared.node_settings or ())
    before = recorded.node_settings
    asked = ApplyExternal(
        settings=settings,
        kind=recorded.engine.kind,
        save_again=before is not None and dict(before) != settings,
    )
    notices: list[str] = []

    def planner(topology: Topology, facts: Facts, _: Wishes) -> Planner:
        refuse_silent(topology, facts)
        said = (*words(topology, facts, asked), *left_alone(recorded, declared, EXTERNAL_VERBS))

        def phase(seen: Facts) -> Phase | None:
            notices[:] = [*said, *not_saved(seen)]
            return apply_external_phase(topology, seen, asked)

        return phase

    def result(topology: Topology, facts: Facts) -> Topology:
        brought = declared.node_settings if not not_saved(facts) else before
        return replace(topology, redis=declared.redis, node_settings=brought)

    return Verb(
        name="apply-config",
        what=f"--config {declared.source}" if declared.source else "",
        planner=planner,
        result=result,
        settings=tuple(sorted(settings.keys() - SECRET_DIRECTIVES)),
        notices=notices,
        keeps_nodes=True,
    )
