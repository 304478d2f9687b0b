"""What registries call the images of a host: beside their tags, the names by which Docker finds what is pinned."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from redisforge.errors import HostError
from redisforge.fleet.docker_look import LOOK_LIMIT_S, docker_problem, look_at_docker
from redisforge.fleet.transport import Transport
from redisforge.model.image_report import DockerFacts

_DIGESTS = r"""
export LC_ALL=C
ids=$(docker image ls --quiet --no-trunc | sort -u) || exit
[ -z "$ids" ] || docker image inspect --format '{{.Id}} {{json .RepoDigests}}' $ids
"""
_NAMELESS = "<none>"


async def look_at_images(transport: Transport) -> DockerFacts:
    """As `look_at_docker`, and with the digests of the images: to be asked wherever one is looked for by a name.

    Raises:
        HostError: Docker does not answer; with the cure.
    """
    facts = await look_at_docker(transport)
    done = await transport.run(("sh", "-c", _DIGESTS), timeout_s=LOOK_LIMIT_S, check=False)
    if done.exit_status:
        raise docker_problem(transport.host, done.stderr or done.stdout)
    try:
        digests = read_digests(done.stdout)
    except msgspec.DecodeError as error:
        raise HostError(
            "the Docker client's answer cannot be read",
            where=transport.host,
            why=f"{error}: {done.stdout[:300]}",
            next_step="look at what `docker image inspect` says there",
        ) from error
    return replace(facts, images=tuple(replace(image, digests=digests.get(image.id, ())) for image in facts.images))


def read_digests(text: str) -> dict[str, tuple[str, ...]]:
    """What _DIGESTS printed: names by the id of their image. Raises msgspec.DecodeError if it is something else."""
    rows = (line.partition(" ") for line in text.splitlines() if line)
    named = {image_id: msgspec.json.decode(names, type=list[str] | None) or () for image_id, _, names in rows}
    return {
        image_id: tuple(name for name in names if not name.startswith(_NAMELESS)) for image_id, names in named.items()
    }
