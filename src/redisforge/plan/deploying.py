"""What `deploy` does with its one Unit, from what is seen of it. Pure.

`deploy` itself and its --dry-run decide by the same functions.
"""

from __future__ import annotations

from collections.abc import Collection

from redisforge.model.deploy_report import DeployOutcome, ImagePlan
from redisforge.model.facts import Facts, UnitFacts, UnitState
from redisforge.model.images import ImageFacts, own_version
from redisforge.model.steps import Gate, Phase, RestartUnit, StartUnit
from redisforge.model.topology import Topology
from redisforge.plan.adopting import members_of

HERE = "this machine"
"""Where images are looked for and built."""


def image_plan(
    images: Collection[ImageFacts], name: str, base: str, program_bytes: int | None, *, is_known: bool = True
) -> ImagePlan:
    """What becomes of the image `name`, by the images that are here: one of RedisForge's own is built on `base`, any
    other is pulled. Not `is_known`: it will be one of RedisForge's own, and which version is known later.
    `program_bytes` is the size of the program that goes into it, None while that is not here."""
    if is_known and any(image.is_called(name) for image in images):
        return ImagePlan(name=name, host=HERE, action="nothing")
    if is_known and not own_version(name):
        return ImagePlan(name=name, host=HERE, action="pull")
    found = next((image for image in images if image.is_called(base)), None)
    about = found.size_bytes + program_bytes if found is not None and program_bytes is not None else None
    return ImagePlan(name=name, host=HERE, action="build", base=base, is_base_here=found is not None, about_bytes=about)


def outcome_of(seen: UnitFacts | None, config_hash: str | None) -> DeployOutcome:
    """What becomes of a Unit. `config_hash` None: its program is not here yet, so that another version may come."""
    if seen is None or seen.state not in (UnitState.RUNNING, UnitState.ORPHANED):
        return "started"
    if config_hash is None or seen.config_hash not in ("", config_hash):
        return "restarted"
    return "runs already"


def may_be_blank(topology: Topology, facts: Facts, name: str) -> bool:
    """Whether a node may start without data: it has never been a member, and nobody expects slots at its address."""
    node = next((node for node in topology.own_nodes if node.name == name), None)
    seen = facts.units.get(name)
    if node is None or (seen is not None and (seen.was_member or seen.has_cluster_config)):
        return False
    here = (node.address, node.port)
    return not any((p.address, p.port) == here and p.slots for n in facts.reachable_nodes() for p in n.peers)


def phases_of(topology: Topology, facts: Facts, name: str, config_hash: str | None, wait_s: float) -> tuple[Phase, ...]:
    """The phases of `deploy`: one, or none if the Unit runs as it should. `config_hash` is as in `outcome_of`; `wait_s`
    is how long it may take to answer, in seconds."""
    outcome = outcome_of(facts.units.get(name), config_hash)
    if outcome == "runs already":
        return ()
    is_envoy = any(envoy.name == name for envoy in topology.envoys)
    gate = Gate("nodes_answer", wait_s, envoy=name if is_envoy else "", node="" if is_envoy else name)
    if outcome == "restarted":
        why = "its program is fetched first, and may be another version"
        if config_hash is not None:
            why = "it runs with another configuration"
        why += "" if is_envoy else "; its keeper hands a master's slots over"
        return (Phase(title=f"restart {name}", steps=(RestartUnit(unit=name, why=why),), gate=gate),)
    blank = may_be_blank(topology, facts, name)
    seen = facts.units.get(name)
    if is_envoy or blank:
        why = "it does not run"
    elif seen is not None and (seen.was_member or seen.has_cluster_config):
        why = "it does not run; it was a member, so it starts with its data alone"
    else:
        why = "it does not run; others expect slots at its address, so without its data it is held back"
    return (Phase(title=f"start {name}", steps=(StartUnit(unit=name, permit_blank=blank, why=why),), gate=gate),)


def unknown_members(topology: Topology, facts: Facts) -> tuple[str, ...]:
    """Members (HOST:PORT) of a formed cluster that the topology does not have. Empty: none is formed, or all are."""
    formed = next((node for node in facts.reachable_nodes() if node.slots or node.master_id), None)
    if formed is None:
        return ()
    known = {(node.address, node.port) for node in topology.nodes}
    return tuple(f"{peer.address}:{peer.port}" for peer in members_of(formed) if (peer.address, peer.port) not in known)
