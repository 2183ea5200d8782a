"""Which base makes a family of models smallest: the first paper's clustering, in real bytes.

Models that come from one training differ little; sent together, or stored together, they should
share what they have in common. The paper predicts every member of a cluster from its centre; here
the centre is a member (the medoid) or the average of all, and a tree, where each member is coded
against whichever is nearest, is measured beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from limosa.codec.arborescence import cheapest_tree
from limosa.errors import ConfigError
from limosa.exchange.workshop.estimate import estimate
from limosa.exchange.workshop.unpacked import open_unpacked, write_unpacked
from limosa.files import Bundle
from limosa.limits import Limits
from limosa.tensors import Bytes, Tensor, TensorSpec

#: The name of the average among the bases.
AVERAGE = "average"


@dataclass(frozen=True)
class ClusterReport:
    """What a family takes from each base, in bytes.

    Attributes:
        whole: each member by itself.
        against: member -> what each other member takes against it.
        average_whole: of the average itself; None where there is none.
        against_average: what each member takes against it.
        tree: member -> the one that it is coded against, None for the root; the cheapest of all.
    """

    whole: Mapping[str, int]
    against: Mapping[str, Mapping[str, int]]
    average_whole: int | None
    against_average: Mapping[str, int]
    tree: Mapping[str, str | None]

    @property
    def alone(self) -> int:
        """All members, each by itself."""
        return sum(self.whole.values())

    def star(self, centre: str) -> int:
        """A centre, and all others against it."""
        if centre == AVERAGE:
            return (self.average_whole or 0) + sum(self.against_average.values())
        return self.whole[centre] + sum(self.against[centre].values())

    @property
    def tree_bytes(self) -> int:
        """The cheapest tree."""
        return sum(
            self.whole[name] if base is None else self.against[base][name]
            for name, base in self.tree.items()
        )

    @property
    def medoid(self) -> str:
        """The member whose star is smallest."""
        return min(self.whole, key=lambda name: (self.star(name), name))

    @property
    def best(self) -> str:
        """alone, tree, :data:`AVERAGE`, or the name of the medoid: whichever takes least."""
        ways = {"alone": self.alone, self.medoid: self.star(self.medoid), "tree": self.tree_bytes}
        if self.average_whole is not None:
            ways[AVERAGE] = self.star(AVERAGE)
        return min(ways, key=lambda name: ways[name])


def choose(
    models: Mapping[str, Path],
    *,
    limits: Limits,
    average_path: Path | None = None,
    threads: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> ClusterReport:
    """Measure a family, by samples of large models.

    Args:
        models: name -> the folder of a decoded version.
        limits: for reading these.
        average_path: the folder for the average; None: it is not considered.
        threads: to encode with.
        progress: is called with the name of each member before it is measured.

    Raises:
        ConfigError: there are fewer than two.
        FormatError: a file is damaged.
    """
    if len(models) < 2:
        raise ConfigError("a family has two members at least", found=str(len(models)))
    names, paths = list(models), list(models.values())
    centre = None
    if average_path is not None and average(paths, average_path, limits):
        centre = average_path
    whole: dict[str, int] = {}
    against: dict[str, dict[str, int]] = {name: {} for name in names}
    to_average: dict[str, int] = {}
    for name, path in models.items():
        if progress is not None:
            progress(name)
        others = [other for other in names if other != name]
        bases: list[Path | None] = [None, *(models[other] for other in others)]
        if centre is not None:
            bases.append(centre)
        found = estimate(bases, path, limits=limits, threads=threads)
        whole[name] = found[0]
        for other, nbytes in zip(others, found[1:], strict=False):
            against[other][name] = nbytes
        if centre is not None:
            to_average[name] = found[-1]
    average_whole = None
    if centre is not None:
        (average_whole,) = estimate([None], centre, limits=limits, threads=threads)
    tree = _tree(names, whole, against)
    return ClusterReport(whole, against, average_whole, to_average, tree)


def _tree(
    names: Sequence[str], whole: Mapping[str, int], against: Mapping[str, Mapping[str, int]]
) -> dict[str, str | None]:
    intra = [float(whole[name]) for name in names]
    costs = [[float(against[base].get(name, whole[name])) for name in names] for base in names]
    parents = cheapest_tree(intra, costs)
    return {
        name: None if parent is None else names[parent]
        for name, parent in zip(names, parents, strict=True)
    }


def average(models: Sequence[Path], out: Path, limits: Limits) -> bool:
    """Write the mean of models in the form of the first one; float tensors that all have with one
    dtype and shape are averaged in double precision and rounded once, others are the first one's.

    Returns:
        Whether there was anything to average.

    Raises:
        FormatError: a file is damaged.
    """
    with ExitStack() as stack:
        bundles = [stack.enter_context(open_unpacked(path, limits)) for path in models]
        first = bundles[0]
        common = [set(bundle.specs) for bundle in bundles]
        shared = {spec.name for spec in set.intersection(*common) if _is_float(spec)}
        if not shared:
            return False

        def load(number: int) -> Bytes:
            spec = first.specs[number]
            return _mean(bundles, spec) if spec.name in shared else first.get(spec.name).data

        write_unpacked(Bundle(first.sources, first.specs, load, limits=limits), out, limits)
    return True


def _is_float(spec: TensorSpec) -> bool:
    return spec.dtype in ("F16", "BF16", "F32", "F64")


def _mean(bundles: Sequence[Bundle], spec: TensorSpec) -> Bytes:
    total = np.zeros(spec.shape, np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        for bundle in bundles:
            total += bundle.get(spec.name).numpy().astype(np.float64)
        dtype = bundles[0].get(spec.name).numpy().dtype
        return Tensor.from_numpy((total / len(bundles)).astype(dtype)).data
