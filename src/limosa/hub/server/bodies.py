"""What requests hold, as the OpenAPI schema tells it."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from limosa.hub.store.uploads import Announced

Hex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
#: A state, or nothing.
Base = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{64})?$")]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
RepositoryName = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,95}/[a-z0-9][a-z0-9._-]{0,95}$")
]
ScopeText = Annotated[str, StringConstraints(pattern=r"^(read|push|admin):[a-z0-9*?._/-]{1,200}$")]
Count = Annotated[int, Field(ge=0, lt=2**63)]


class Body(BaseModel):
    """What a request holds; what is not named here is refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _no_zero(cls, value: Any) -> Any:
        """PostgreSQL has no place for the character 0 in a text."""
        if isinstance(value, str) and "\0" in value:
            raise ValueError("the character 0 is not allowed")
        return value


class RouteBounds(Body):
    """Limits of a route (limosa.hub.planner.RouteLimits)."""

    hops: Annotated[int, Field(ge=1, le=1000)] | None = None
    memory: Count | None = None
    seconds: Annotated[float, Field(ge=0, le=1e9)] | None = None


class PlanBody(Body):
    """What a receiver holds and wants."""

    want: Annotated[str, Field(max_length=200)]
    have: Annotated[list[Hex], Field(max_length=10_000)] = []
    limits: RouteBounds = RouteBounds()
    layer: Annotated[int, Field(ge=1, le=255)] | None = None


class EdgeBody(Body):
    """The ends of an edge."""

    base: Base
    target: Hex


class CopyBody(Body):
    """A version, and how much of it may be lost."""

    want: Annotated[str, Field(max_length=200)]
    quality: Annotated[str, Field(min_length=1, max_length=60)]


class UploadBody(Body):
    """What a sender will send."""

    version: Name
    digest: Hex
    state: Hex
    base: Base = ""
    nbytes: Count
    sha256: Hex
    notes: Annotated[str, Field(max_length=20_000)] = ""
    metrics: Annotated[
        dict[Annotated[str, Field(max_length=100)], float], Field(max_length=100)
    ] = {}
    parents: Annotated[list[Annotated[str, Field(max_length=300)]], Field(max_length=100)] = []
    tags: Annotated[list[Name], Field(max_length=20)] = []

    @field_validator("metrics")
    @classmethod
    def _finite(cls, value: dict[str, float]) -> dict[str, float]:
        if not all(map(math.isfinite, value.values())) or any("\0" in name for name in value):
            raise ValueError("metrics are finite numbers with plain names")
        return value

    @field_validator("parents")
    @classmethod
    def _plain(cls, value: list[str]) -> list[str]:
        if any("\0" in one for one in value):
            raise ValueError("the character 0 is not allowed")
        return value

    def announced(self) -> Announced:
        """The same, for the store."""
        return Announced(**self.model_dump())


class TagBody(Body):
    """What a tag shall mean, and what it means now."""

    version: Name
    expect: Base | None = None


class GcBody(Body):
    """How thorough ``gc`` is."""

    dry_run: bool = False
    thin: bool = False
    uploads: bool = False


class FsckBody(Body):
    """How thorough ``fsck`` is."""

    read_data: bool = False


class PrebakeBody(Body):
    """Whose edges to make, and for how long."""

    repository: RepositoryName
    dry_run: bool = False
    seconds: Annotated[float, Field(ge=0, le=86400)] = 600.0


class ClusterBody(Body):
    """A family, and whether to store it anew."""

    versions: Annotated[
        list[Annotated[str, Field(max_length=300)]], Field(min_length=1, max_length=200)
    ]
    apply: bool = False


class TokenBody(Body):
    """A token to be made."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    scopes: Annotated[list[ScopeText], Field(min_length=1, max_length=50)]
    #: Seconds from now on.
    expires: Annotated[float, Field(gt=0, le=1e10)] | None = None


class DeviceBody(Body):
    """A device to be known."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    scopes: Annotated[list[ScopeText], Field(min_length=1, max_length=50)]


class HeldBody(Body):
    """A version that a device holds."""

    repository: RepositoryName
    digest: Hex
    path: Annotated[str, Field(max_length=1000)] = ""


class HoldingsBody(Body):
    """All that a device holds."""

    holds: Annotated[list[HeldBody], Field(max_length=10_000)]


class DeliveryBody(Body):
    """A pull that ended well."""

    repository: RepositoryName
    target: Hex
    start: Base = ""
    nbytes: Count
