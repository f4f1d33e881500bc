"""How often vcrecon looks, and how long it waits. Of the controller, not of the site: the spec holds those.

Values are seconds where the name says so. Every field can be set from the environment as VCRECON_<NAME> in upper case.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields

from vcrecon.errors import Refused


@dataclass(frozen=True, slots=True)
class Settings:
    """The defaults suit real hosts, where a full look costs the host about one second."""

    relist_s: float = 60.0
    """A full look at every container at least this often, with jitter, even when nothing seems to happen."""
    poll_s: float = 10.0
    """A cheap look at the guests at least this often; events come sooner."""
    events: int = 1
    """1 to hear of a guest's death from its hypervisor at once; 0 to learn of it by looking only."""
    retry_unreachable_s: float = 5.0
    look_deadline_s: float = 30.0
    connect_deadline_s: float = 10.0
    connects_at_once: int = 32
    lease_s: int = 90
    """How long a container belongs to a master that does not look at it any more."""
    keepalive_s: float = 10.0
    keepalive_count: int = 3
    spec_debounce_s: float = 0.1
    settle_s: float = 0.02
    """The shortest time between two passes of one container."""
    stable_s: float = 60.0
    """A guest that ran this long is no longer counted as crashing again and again."""
    shutdown_s: float = 20.0
    """How long steps in flight may take to end after SIGTERM."""
    apply_deadline_s: float = 3600.0
    stuck_s: float = 10.0
    """`apply` gives up when for so long nothing was done and only blocked objects are left."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Raises Refused for a value that is not a number."""
        values: dict[str, float | int] = {}
        for field in fields(cls):
            name = f"VCRECON_{field.name.upper()}"
            if name in environment:
                kind = int if field.type == "int" else float
                try:
                    values[field.name] = kind(environment[name])
                except ValueError:
                    raise Refused(f"{name}={environment[name]!r} is not a number; unset it or correct it") from None
        return cls(**values)  # type: ignore[arg-type]
