"""What each page shows. Times are seconds since 1970, in UTC; sizes are bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date


@dataclass(frozen=True)
class Page:
    """What is the same on every page.

    Attributes:
        user: who is signed in; "" for nobody.
        csrf: goes back with every form.
        now: what "2 hours ago" is counted from.
        sees_devices, sees_tokens: whether these pages exist for the caller.
        notice: what the last form did, said once.
    """

    user: str = ""
    csrf: str = ""
    now: float = 0.0
    sees_devices: bool = False
    sees_tokens: bool = False
    notice: str = ""


@dataclass(frozen=True)
class SavedPoint:
    """What travelled on a day.

    Attributes:
        day: in UTC.
        bytes_sent: that travelled.
        bytes_whole: that whole compressed models would have taken.
        bytes_raw: that the files as they are would have taken.
        pulls: how many.
    """

    day: date
    bytes_sent: int
    bytes_whole: int
    bytes_raw: int
    pulls: int = 0


@dataclass(frozen=True)
class RepositoryRow:
    """A row of the list of repositories; *latest* is its newest version."""

    name: str
    description: str
    versions: int
    nbytes: int
    updated: float
    latest: str = ""


@dataclass(frozen=True)
class RepositoriesView:
    """The first page; *saved* gives its totals."""

    page: Page
    repositories: Sequence[RepositoryRow]
    saved: Sequence[SavedPoint] = ()


@dataclass(frozen=True)
class Bound:
    """How far a lossy copy is from its original: *snr* in dB, *max_error* of an element."""

    quality: str
    snr: float
    max_error: float


@dataclass(frozen=True)
class VersionRow:
    """A version, or (then *name* is "") a lossy copy of one.

    Attributes:
        nbytes: of the decoded tensors.
        blob_nbytes: of the smallest whole blob; None if there are only updates.
        update_nbytes: of the smallest update that leads to it; None if there is none.
        parents: digests or names, as the sender says.
        devices: how many hold it.
        of: of a lossy copy, the digest of its original.
        of_name: and the name of it.
    """

    name: str
    digest: str
    nbytes: int
    created: float
    by: str
    blob_nbytes: int | None = None
    update_nbytes: int | None = None
    notes: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    parents: Sequence[str] = ()
    tags: Sequence[str] = ()
    devices: int = 0
    of: str = ""
    of_name: str = ""
    bound: Bound | None = None

    @property
    def reference(self) -> str:
        """What follows the repository in an address and in a command."""
        return self.name or f"@{self.digest}"


@dataclass(frozen=True)
class GraphNode:
    """A state of a model.

    Attributes:
        name: "" for a lossy copy, and for a base that a family shares.
        of: of a lossy copy, the digest of its original.
        bound: of a lossy copy, in few words.
        parents: digests that it was made from, as far as known.
    """

    digest: str
    state: str
    name: str = ""
    nbytes: int = 0
    of: str = ""
    bound: str = ""
    tags: Sequence[str] = ()
    parents: Sequence[str] = ()


@dataclass(frozen=True)
class GraphEdge:
    """A blob, or one that could be made.

    Attributes:
        base: state that it starts from; "" for a whole model.
        target: digest that it gives.
        kind: pushed, made, baked, copy or shared; "estimate" for one that is not made.
    """

    base: str
    target: str
    nbytes: int
    kind: str = "pushed"


@dataclass(frozen=True)
class Graph:
    """The versions of a repository, oldest first, and what leads from one to another."""

    nodes: Sequence[GraphNode] = ()
    edges: Sequence[GraphEdge] = ()


@dataclass(frozen=True)
class RepositoryView:
    """A repository: *versions* newest first, *graph* oldest first."""

    page: Page
    name: str
    description: str
    versions: Sequence[VersionRow]
    graph: Graph
    saved: Sequence[SavedPoint] = ()


@dataclass(frozen=True)
class Histogram:
    """How many elements lie in each of equally wide bins from *low* to *high*."""

    low: float
    high: float
    counts: Sequence[int]


@dataclass(frozen=True)
class TensorRow:
    """A tensor of a version.

    Attributes:
        mean, std, low, high: of the finite elements; None if it has none.
        histogram: of the elements.
        delta: of the difference to the same tensor of the base.
        changed: elements that differ from the base's.
    """

    name: str
    dtype: str
    shape: Sequence[int]
    nbytes: int
    mean: float | None = None
    std: float | None = None
    low: float | None = None
    high: float | None = None
    histogram: Histogram | None = None
    delta: Histogram | None = None
    changed: int | None = None

    @property
    def elements(self) -> int:
        """How many there are."""
        product = 1
        for extent in self.shape:
            product *= extent
        return product


@dataclass(frozen=True)
class Asked:
    """What the reader asked of the table of tensors: the query of the address."""

    text: str = ""
    sort: str = ""
    descending: bool = False
    page: int = 1
    tensor: str = ""


@dataclass(frozen=True)
class Way:
    """A blob that leads to a version: from the version *base_name*, or from nothing ("")."""

    base: str
    base_name: str
    nbytes: int
    kind: str = "pushed"


@dataclass(frozen=True)
class VersionView:
    """A version.

    Attributes:
        ways: the blobs that lead to it.
        tensors: all of them, in the order of the file.
        base: what *delta* of the tensors is against, as people call it; "" without.
        pending: whether the statistics are still being computed.
        whole: all tensors as one, for the figure.
    """

    page: Page
    repository: str
    version: VersionRow
    ways: Sequence[Way] = ()
    tensors: Sequence[TensorRow] = ()
    base: str = ""
    pending: bool = False
    whole: TensorRow | None = None
    asked: Asked = Asked()


@dataclass(frozen=True)
class HoldRow:
    """A version on a device; *behind*: how many versions are newer, None if nobody knows."""

    repository: str
    name: str
    digest: str
    path: str = ""
    behind: int | None = None


@dataclass(frozen=True)
class DeviceRow:
    """A device, when it was last heard of, and what it holds."""

    name: str
    seen: float | None
    holds: Sequence[HoldRow] = ()


@dataclass(frozen=True)
class DevicesView:
    """All devices."""

    page: Page
    devices: Sequence[DeviceRow]


@dataclass(frozen=True)
class TokenRow:
    """A token, without its secret; *own*: the one that the reader is signed in with."""

    id: int
    name: str
    kind: str
    scopes: Sequence[str]
    created: float
    expires: float | None = None
    used: float | None = None
    own: bool = False


@dataclass(frozen=True)
class TokenForm:
    """What the form for a new token says, and what was wrong with it."""

    name: str = ""
    scopes: str = ""
    days: str = "90"
    problem: str = ""


@dataclass(frozen=True)
class TokensView:
    """All tokens; *secret* is that of the new token *secret_name*, shown this once."""

    page: Page
    tokens: Sequence[TokenRow]
    form: TokenForm = TokenForm()
    secret: str = ""
    secret_name: str = ""


@dataclass(frozen=True)
class SavedView:
    """What travelled, by day (oldest first) and by repository."""

    page: Page
    days: Sequence[SavedPoint]
    repositories: Mapping[str, SavedPoint] = field(default_factory=dict)


@dataclass(frozen=True)
class LoginView:
    """The form for a token; *next* is where to go then."""

    page: Page
    problem: str = ""
    next: str = "/"


@dataclass(frozen=True)
class ProblemView:
    """What went wrong, as the JSON of the same answer would say it."""

    page: Page
    status: int
    title: str
    detail: str = ""
    remedy: str = ""
