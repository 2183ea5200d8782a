"""``limosa pull -o -``: a model for the next program of a pipe."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, BinaryIO

from limosa.cli import options
from limosa.errors import ConfigError

if TYPE_CHECKING:
    from limosa.exchange.install import PullResult
    from limosa.hub.client import HubClient
    from limosa.hub.reference import Reference
    from limosa.hub.settings import Places


def check_one_file(client: HubClient, reference: Reference) -> None:
    """Refuse a folder before it is fetched.

    Raises:
        ConfigError: the version has several files.
    """
    files = client.version(reference.repository, reference.version)["manifest"]["files"]
    if len(files) != 1 or files[0]["path"]:
        raise _several(reference)


def pull_to_stdout(
    places: Places, reference: Reference, pull_to: Callable[[Path], PullResult]
) -> PullResult:
    """Pull into the cache, and from there to standard output; nothing of it stays.

    A pipe gets its first byte when the digest of the last one was compared.

    Raises:
        ConfigError: the version has several files.
    """
    sink: Any = options.sink("-")
    stream: BinaryIO = sink
    # Where cache prune looks, should this process be killed.
    folder = places.make_cache() / "pulls"
    folder.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix="stdout-", dir=folder) as scratch:
        place = Path(scratch) / "model"
        result = pull_to(place)
        if place.is_dir():
            raise _several(reference)
        with place.open("rb") as file:
            shutil.copyfileobj(file, stream, 2**20)
        stream.flush()
    return replace(result, path="standard output")


def _several(reference: Reference) -> ConfigError:
    return ConfigError(
        "a model of several files cannot go to standard output", where=str(reference),
        remedy="name a folder with -o",
    )  # fmt: skip
