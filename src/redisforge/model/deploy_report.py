"""What `redisforge deploy --dry-run` prints: what `deploy` would do on this host, in its order."""

from __future__ import annotations

from typing import Literal

import msgspec

from redisforge.model.images import ImageProgram
from redisforge.model.steps import Phase

DeployOutcome = Literal["started", "restarted", "runs already"]
"""What becomes of the Unit."""


class ProgramPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A program that `deploy` needs. `asked`: the rule for its version; `version` is empty if it is to be fetched."""

    program: ImageProgram
    asked: str
    version: str
    action: Literal["nothing", "fetch"]


class ImagePlan(msgspec.Struct, frozen=True, kw_only=True):
    """The image of the Unit's container. `host` is where it is looked for and built: deploy works on this machine.

    An image of RedisForge's whose version is not known yet has a `name` without a tag: it is built if it is not there.
    """

    name: str
    host: str
    action: Literal["nothing", "build", "pull"]
    base: str = ""
    """What it is built on; empty if it is not built."""
    is_base_here: bool = True
    """Otherwise Docker pulls it."""
    about_bytes: int | None = None
    """Roughly what the built image takes: its base and the program, and some 40 MB more where the base has no python3.
    None: nothing is built, or the base or the program is not here yet."""


class DeployPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What `deploy` would do: fetch programs, build the image, then the `phases`, as in plan.schema.json.

    `outcome` is what `deploy --json` would report as `done`. `learns` are members (HOST:PORT) of a cluster that was
    formed, which are not recorded here yet: they are recorded at the end.
    """

    cluster: str
    unit: str
    address: str
    port: int
    outcome: DeployOutcome
    programs: tuple[ProgramPlan, ...]
    image: ImagePlan | None
    phases: tuple[Phase, ...]
    learns: tuple[str, ...]
    notices: tuple[str, ...]
