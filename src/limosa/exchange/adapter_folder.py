"""An adapter of peft as itself: what a seed gives again is left out, the folder comes back."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import IO

from limosa.codec.encoder import EncodeResult, encode
from limosa.codec.quality import Lossy, Quality
from limosa.exchange.outputs import open_output
from limosa.files import Bundle
from limosa.files.adapter import CONFIG, WEIGHTS, check_folder
from limosa.files.adapter_seeds import find_seeded
from limosa.files.folder import read_files
from limosa.files.safetensors import read_file, without_seeded
from limosa.files.seeded import Seeded
from limosa.limits import Limits

#: Vectors that are all that some methods learn; where loss is allowed, these are not kept.
LEARNED_VECTORS = ("*vera_lambda_?", "*.shira_weight", "*.ia3_l", "*ft_spectrum")


@dataclass(frozen=True)
class AdapterResult:
    """What came of coding an adapter.

    Attributes:
        encoded: sizes, and the digest of the tensors that travel.
        bytes_in: of all its tensors.
        drawn: names and bytes of the tensors that a seed gives again.
    """

    encoded: EncodeResult
    bytes_in: int
    drawn: dict[str, int]


def compress_adapter(
    folder: str | os.PathLike[str],
    destination: str | os.PathLike[str] | IO[bytes],
    *,
    quality: Quality | None = None,
    threads: int | None = None,
    limits: Limits | None = None,
    progress: Callable[[int], None] | None = None,
) -> AdapterResult:
    """Code ``adapter_config.json`` and ``adapter_model.safetensors``, which decompress gives back.

    Tensors that the torch of this machine draws again from the seed in the configuration, bit for
    bit, do not travel: projections of VeRA and PVeRA, bases of RandLoRA, indices of SHiRA.
    Without torch all of them do. Whoever decompresses needs a torch that draws the same numbers,
    which is checked.

    Args:
        folder: as ``save_pretrained`` of peft writes it; its other files stay behind.
        destination: a path, which appears whole or not at all, or a binary stream.
        quality: lossless unless given. The vectors that some methods learn may lose as well,
            unless ``keep`` is set.
        threads: how many to use; None for all processors.
        limits: what the adapter may ask for.
        progress: is called with the number of tensor bytes done since the last call.

    Raises:
        ConfigError: there is no adapter, or only a pickled one.
        FormatError: a file is damaged.
    """
    config = check_folder(folder)
    held = limits or Limits()
    bundle = read_files(folder, [CONFIG, WEIGHTS], held)
    if bundle.sources[1].kind != "safetensors":
        read_file(os.path.join(folder, WEIGHTS), held)  # says what is wrong with it
    seeded = find_seeded(bundle, bundle.sources[1], config, held)
    reduced = _without(bundle, seeded, held)
    if isinstance(quality, Lossy) and not quality.keep:
        quality = replace(quality, lossy=(*quality.lossy, *LEARNED_VECTORS))
    with open_output(destination) as output:
        result = encode(reduced, output.write, quality=quality, threads=threads, progress=progress)
        output.commit()
    drawn = {one.spec.name: one.spec.nbytes for one in seeded.tensors}
    return AdapterResult(result, result.bytes_in + sum(drawn.values()), drawn)


def _without(bundle: Bundle, seeded: Seeded, limits: Limits) -> Bundle:
    if not seeded.tensors:
        return bundle
    drawn = {one.spec.name for one in seeded.tensors}
    sources = [bundle.sources[0], without_seeded(bundle.sources[1], seeded)]
    specs = [spec for spec in bundle.specs if spec.name not in drawn]
    return Bundle(sources, specs, lambda i: bundle.get(specs[i].name).data, limits=limits)
