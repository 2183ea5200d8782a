"""An adapter of peft as itself: what its seed gives again stays behind."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from limosa.codec.encoder import EncodeResult, encode
from limosa.codec.quality import Lossy, Quality
from limosa.errors import CorruptError, MissingExtraError
from limosa.exchange.local import Place, Progress
from limosa.exchange.outputs import open_output
from limosa.files import Bundle
from limosa.files.adapter import CONFIG, PREFIX, WEIGHTS, Adapter, read_adapter
from limosa.files.bundle import Namer
from limosa.files.opaque import describe
from limosa.files.read import read
from limosa.files.safetensors import bundle_from_tensors, metadata_of
from limosa.limits import Limits
from limosa.tensors import Tensor, tensor_digest

if TYPE_CHECKING:
    from limosa.torch.adapter_draws import Draw

#: The entry of the weights' metadata that says what stayed behind.
DRAWN_KEY = "limosa.drawn"
# All that some methods learn is a vector; where loss is allowed these are not kept as they are.
_LEARNED_VECTORS = ("*vera_lambda_?", "*.shira_weight", "*.ia3_l")


@dataclass(frozen=True)
class AdapterResult:
    """What came of coding an adapter.

    Attributes:
        encoded: sizes, and the digest of the tensors that travel.
        bytes_in: of all its tensors.
        drawn: bytes of the tensors that peft draws again from the seed, by their names.
    """

    encoded: EncodeResult
    bytes_in: int
    drawn: Mapping[str, int]


def compress_adapter(
    folder: str | os.PathLike[str],
    destination: Place,
    *,
    quality: Quality | None = None,
    threads: int | None = None,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> AdapterResult:
    """Code the configuration and the weights of an adapter, less what its seed gives again.

    ``decompress`` makes a folder that peft loads. Projections of VeRA, PVeRA and RandLoRA, and
    indices of SHiRA are left out if this machine's peft draws the same bits; the configuration then
    says ``"save_projection": false``, as for an adapter that was saved so, and the metadata of the
    weights have the digests, for :func:`check_drawn`. Without peft all tensors travel.

    Args:
        folder: as ``save_pretrained`` of peft writes it; other files in it stay behind.
        destination: a path, which appears whole or not at all, or a binary stream.
        quality: lossless unless given. With loss, the vectors that some methods learn lose as
            well, unless ``keep`` is given.
        threads: how many to use; None for all processors.
        limits: what the adapter may ask for.
        progress: is called with the number of tensor bytes done since the last call.

    Raises:
        ConfigError: there is no adapter, or only a pickled one.
        FormatError: a file is damaged.
    """
    held = limits or Limits()
    adapter = read_adapter(folder, limits=held)
    draws = _find_draws(adapter, held)
    bundle = _bundle(Path(folder), adapter, draws, held)
    if isinstance(quality, Lossy) and not quality.keep:
        quality = replace(quality, lossy=(*quality.lossy, *_LEARNED_VECTORS))
    with open_output(destination) as output:
        result = encode(bundle, output.write, quality=quality, threads=threads, progress=progress)
        output.commit()
    drawn = {name: adapter.tensors[name].data.size for name in draws}
    return AdapterResult(result, sum(t.data.size for t in adapter.tensors.values()), drawn)


def check_drawn(folder: str | os.PathLike[str], *, limits: Limits | None = None) -> list[str]:
    """The names of the tensors that stayed behind, which this machine's peft draws as the sender's.

    Raises:
        ConfigError: there is no adapter.
        FormatError: a file is damaged.
        MissingExtraError: peft is not installed, or it draws other numbers.
    """
    held = limits or Limits()
    with read(Path(folder) / WEIGHTS, limits=held) as bundle:
        said = (metadata_of(bundle.sources[0], held) or {}).get(DRAWN_KEY)
    if said is None:
        return []
    from limosa.torch.adapter_draws import draw_again

    adapter = read_adapter(folder, limits=held)
    expected = _parse(said)
    draws = {draw for draw, _ in expected.values()}
    made = {draw: draw_again(adapter, draw, limits=held) for draw in draws}
    for name, (draw, digest) in expected.items():
        drawn = made[draw].get(name.rpartition(".")[2])
        if drawn is None or _digest(drawn) != digest:
            raise MissingExtraError(
                "this peft and torch draw other numbers than the sender's",
                where=f"tensor {name!r}",
                remedy="install the sender's versions, or have the folder sent by limosa compress",
            )
    return list(expected)


def _find_draws(adapter: Adapter, limits: Limits) -> dict[str, Draw]:
    try:
        from limosa.torch.adapter_draws import find_draws

        return find_draws(adapter, limits=limits)
    except MissingExtraError:
        return {}


def _bundle(folder: Path, adapter: Adapter, draws: Mapping[str, Draw], limits: Limits) -> Bundle:
    """The two files of an adapter, less the tensors of *draws*."""
    with read(folder / WEIGHTS, limits=limits) as whole:
        metadata = metadata_of(whole.sources[0], limits)
        kept = {spec.name: whole.get(spec.name) for spec in whole.specs}
    text = (folder / CONFIG).read_bytes()
    if draws:
        kept = {name: t for name, t in kept.items() if name.removeprefix(PREFIX) not in draws}
        metadata = {**(metadata or {}), DRAWN_KEY: _render(adapter, draws)}
        if "save_projection" in adapter.config:
            text = json.dumps({**adapter.config, "save_projection": False}, indent=2).encode()
    weights = bundle_from_tensors(kept, metadata, limits=limits)
    source, specs = describe(np.frombuffer(text, np.uint8), CONFIG, Namer(), limits)
    assert not specs, "a configuration is small, and travels in its skeleton"
    sources = [source, replace(weights.sources[0], path=WEIGHTS)]
    blocks = [tensor.data for tensor in kept.values()]
    return Bundle(sources, weights.specs, blocks.__getitem__, limits=limits)


def _digest(tensor: Tensor) -> str:
    return tensor_digest(tensor.dtype, tensor.shape, tensor.data)[:16].hex()


def _render(adapter: Adapter, draws: Mapping[str, Draw]) -> str:
    rows = {
        name: [draw.inputs, draw.outputs, draw.dtype, _digest(adapter.tensors[name])]
        for name, draw in draws.items()
    }
    return json.dumps(rows, separators=(",", ":"))


def _parse(text: str) -> dict[str, tuple[Draw, str]]:
    from limosa.torch.adapter_draws import Draw

    try:
        found = {}
        for name, (inputs, outputs, dtype, digest) in json.loads(text).items():
            if not 0 < int(inputs) < 2**31 or not 0 < int(outputs) < 2**31:
                raise ValueError("a layer of no size")
            found[name] = Draw(int(inputs), int(outputs), str(dtype)), str(digest)
    except (ValueError, TypeError, ArithmeticError, AttributeError, RecursionError) as error:
        raise CorruptError("bad entry", where=DRAWN_KEY, found=str(error)[:80]) from None
    return found
