"""`deploy` in a container: its image, built here if it is missing and may be built."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from redisforge.fleet.docker_look import look_at_docker
from redisforge.fleet.transport import LocalTransport
from redisforge.model.facts import Facts
from redisforge.model.images import own_version
from redisforge.model.unit import Unit
from redisforge.runbooks.cluster import Cluster
from redisforge.runbooks.deploy_input import Wanted
from redisforge.runbooks.images_build import BuildOrder, build_images
from redisforge.runbooks.preflight_ports import OTHER_PORTS_IN_ENV, check_ports
from redisforge.runbooks.run import Progress


def need_image(
    wanted: Wanted, cluster: Cluster, unit: Unit, environment: Mapping[str, str], progress: Progress
) -> None:
    """Build the Unit's image if it is one of RedisForge's own and not here.

    What somebody else calls his, nobody can build here: the start says that it is missing, or pulls it.

    Raises:
        HostError: the ports are not free or not permitted: the start would be refused after minutes of building.
        HostError, BinaryError: the image cannot be built.
    """
    image = unit.container.image if unit.container else ""
    if not own_version(image):
        return
    here = asyncio.run(look_at_docker(LocalTransport()))
    if any(known.is_called(image) for known in here.images):
        return
    facts = Facts(observed_at_s=time.time(), units=asyncio.run(cluster.runtime.observe()))
    check_ports(cluster.topology, cluster.layout, facts, {unit.name: unit}, other_ports=OTHER_PORTS_IN_ENV)
    program = "envoy" if unit.kind == "envoy" else cluster.topology.engine.kind
    order = BuildOrder(program=program, version=own_version(image), base=wanted.base)
    build_images((order,), environment, progress)
