"""What an interrupted calibration leaves for the next run: an .npz of plain arrays."""

from __future__ import annotations

import os
import time
import zipfile
from pathlib import Path

import blake3
import numpy as np
import torch

from limosa.errors import ConfigError
from limosa.files.atomic import AtomicFile
from limosa.torch.calibration.fisher import FisherSums

SECONDS_BETWEEN_WRITES = 30.0
_HESSIAN = "hessian/"


class Checkpoint:
    """A file with the sums so far and the divergences tried; nothing happens without a path.

    Args:
        path: of the file; None for none.
        identity: of the sums: what was calibrated; a file of another identity is refused.
        curve: how it is rounded; what was tried on another curve is forgotten.
        device: for the sums that are read.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        identity: str,
        curve: str,
        device: torch.device,
    ) -> None:
        self._path = None if path is None else Path(path)
        self._identity, self._curve = identity, curve
        self._written = time.monotonic()
        self.found = FisherSums()
        self.tried: dict[float, float] = {}
        if self._path is not None and self._path.exists():
            self._read(self._path, device)

    def _read(self, path: Path, device: torch.device) -> None:
        try:
            with np.load(path, allow_pickle=False) as arrays:
                identity = str(arrays["identity"])
                self.found.count = int(arrays["count"])
                self.found.sums = {
                    name.removeprefix(_HESSIAN): torch.from_numpy(arrays[name]).to(device)
                    for name in arrays.files
                    if name.startswith(_HESSIAN)
                }
                if str(arrays["curve"]) == self._curve:
                    self.tried = dict(arrays["tried"].reshape(-1, 2).tolist())
        except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
            raise ConfigError(
                "not a checkpoint of a calibration",
                where=str(path),
                found=str(error),
                remedy="remove it, or name another",
            ) from error
        if identity != self._identity:
            raise ConfigError(
                "the checkpoint is of another calibration",
                where=str(path),
                found=identity[:16],
                allowed=self._identity[:16],
                remedy="remove it, or name another",
            )

    def write(self, *, now: bool = False) -> None:
        """Write the file, which appears whole, if the last time is long ago or *now* is set."""
        elapsed = time.monotonic() - self._written
        if self._path is None or (elapsed < SECONDS_BETWEEN_WRITES and not now):
            return
        arrays = {_HESSIAN + name: sums.cpu().numpy() for name, sums in self.found.sums.items()}
        with AtomicFile(self._path) as output:
            np.savez(
                output.file,
                identity=np.array(self._identity),
                curve=np.array(self._curve),
                count=np.array(self.found.count),
                tried=np.array(list(self.tried.items()), np.float64),
                **arrays,  # type: ignore[arg-type]
            )
            output.commit()
        self._written = time.monotonic()


def identity_of(tensors: dict[str, torch.Tensor], settings: str) -> str:
    """A digest of the weights and of the settings that shape the sums."""
    digest = blake3.blake3(settings.encode())
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        dense = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(dense.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
