"""Cached blobs from one worker, from nginx behind it, from an S3 behind it."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

from benchmarks.hub.fetch import Client, measure
from benchmarks.hub.servers import REPOSITORY, hub, nginx, object_storage, seed
from limosa.hub.store.blobs import BlobStore, blob_key

ALONE, FOR_NGINX, FOR_S3 = 0.35, 0.95, 0.95


@dataclass(frozen=True)
class Rate:
    """Bytes a second of a way, round by round, and of what it is compared with.

    Attributes:
        name: of the way.
        beside: of what it is compared with; "" for what others are compared with.
        clients: at once.
        rates, others: by round.
        target: of the ratio; None where there is none.
    """

    name: str
    beside: str
    clients: int
    rates: list[float]
    others: list[float]
    target: float | None

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios."""
        return statistics.median(a / b for a, b in zip(self.rates, self.others, strict=True))

    @property
    def quiet(self) -> float:
        """The ratio of the upper quartiles: of the rounds that other programs slowed least."""
        mine, other = (statistics.quantiles(rates, n=4)[2] for rates in (self.rates, self.others))
        return mine / other


def serve(folder: Path, nbytes: int, rounds: int, crowds: tuple[int, ...]) -> list[Rate]:
    """All ways, in turns, fetch by fetch."""
    rates = _beside_nginx(folder, nbytes, rounds, crowds)
    return rates + _beside_s3(folder, nbytes, max(3, rounds // 4))


def _beside_nginx(folder: Path, nbytes: int, rounds: int, crowds: tuple[int, ...]) -> list[Rate]:
    place = folder / "hub"
    sha256, token = seed(place, str(place / "blobs"), nbytes)
    address = f"/v1/repos/{REPOSITORY}/blobs/{sha256}"
    with (
        hub(place) as alone,
        hub(place, "--accel", "/_blobs") as upstream,
        nginx(folder / "nginx", place, upstream) as (front, plain),
    ):
        check(f"http://127.0.0.1:{front}{address}", sha256, token, nbytes)
        check(f"http://127.0.0.1:{alone}{address}", sha256, token, nbytes)
        urls = {
            "nginx": f"http://127.0.0.1:{plain}/{blob_key(sha256)}",
            "alone": f"http://127.0.0.1:{alone}{address}",
            "accel": f"http://127.0.0.1:{front}{address}",
        }
        found = []
        for clients in crowds:
            got = _turns(urls, rounds, clients, token)
            for key, name, target in (
                ("alone", "one limosa worker", ALONE),
                ("accel", "limosa, blobs handed to nginx", FOR_NGINX),
            ):
                found.append(Rate(name, "nginx alone", clients, got[key], got["nginx"], target))
        return found


def _beside_s3(folder: Path, nbytes: int, rounds: int) -> list[Rate]:
    place = folder / "hub-s3"
    with object_storage() as bucket:
        sha256, token = seed(place, bucket, nbytes)
        address = f"/v1/repos/{REPOSITORY}/blobs/{sha256}"
        direct = BlobStore.open(bucket).presigned(blob_key(sha256), 3600)
        assert direct is not None
        with (
            hub(place, "--blobs", bucket, "--redirect") as redirecting,
            hub(place, "--blobs", bucket) as through,
        ):
            urls = {
                "s3": direct,
                "redirect": f"http://127.0.0.1:{redirecting}{address}",
                "through": f"http://127.0.0.1:{through}{address}",
            }
            got = _turns(urls, rounds, 1, token)
    return [
        Rate("limosa, redirected to S3", "that S3 alone", 1, got["redirect"], got["s3"], FOR_S3),
        Rate("S3 through a limosa worker", "that S3 alone", 1, got["through"], got["s3"], None),
    ]


def _turns(urls: dict[str, str], rounds: int, clients: int, token: str) -> dict[str, list[float]]:
    found = measure(clients, rounds, token, list(urls.values()))
    return dict(zip(urls, found, strict=True))


def check(url: str, sha256: str, token: str, nbytes: int) -> None:
    """See whether an address answers as docs/hub-protocol.md says, whole and in parts."""
    client = Client(token)
    whole, tag = client.head(url), f'"{sha256}"'
    assert int(whole["content-length"]) == nbytes, whole
    assert whole["etag"] == tag, whole
    assert "content-digest" in whole, whole
    part = client.head(url, f"Range: bytes={nbytes - 10}-", f"If-Range: {tag}")
    assert part["content-range"] == f"bytes {nbytes - 10}-{nbytes - 1}/{nbytes}", part
    assert part["etag"] == tag, part
    assert "content-digest" not in part, part
    assert "repr-digest" in part, part
    assert client.fetch(url, "Range: bytes=0-9", 'If-Range: "another"') == (200, nbytes)
    assert client.fetch(url, f"If-None-Match: {tag}")[0] == 304
