"""How options are declared: the base of every section, and `option`."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


def option(default: Any, description: str, *, unit: str = "", **bounds: Any) -> Any:
    """Declare an option. `unit` is for the reference; `bounds` are pydantic's (ge, le, max_length ...)."""
    return Field(
        default,
        description=description or None,
        json_schema_extra={"x-unit": unit} if unit else None,
        **bounds,
    )


class Options(BaseModel):
    """A section: unknown keys are errors, values keep their YAML type, nothing changes later."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
