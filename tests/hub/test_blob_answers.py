"""How a hub answers for a blob: whole, in parts, not modified; by itself and through nginx."""

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from benchmarks.hub.servers import nginx
from benchmarks.hub.serving import check
from safetensors.numpy import save_file
from servers import missing

from limosa.exchange.hub_server import HubServer
from limosa.exchange.publish import push
from limosa.hub.client import HubClient
from limosa.hub.digest import content_digest
from limosa.hub.reference import parse_reference
from limosa.hub.server.settings import HubSettings
from limosa.hub.settings import Places
from limosa.hub.store.blobs import blob_key


@dataclass(frozen=True)
class Served:
    hub: HubServer
    token: str
    path: str
    sha256: str
    data: bytes

    def get(self, method: str = "GET", **headers: str) -> httpx.Response:
        shown = {name.replace("_", "-"): value for name, value in headers.items()}
        shown["Authorization"] = f"Bearer {self.token}"
        return httpx.request(method, self.hub.url + self.path, headers=shown)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub")


def _published(server: HubServer, folder: Path) -> Served:
    weights = np.random.default_rng(0).normal(size=(300, 500)).astype(np.float32)
    save_file({"w": weights}, folder / "model.safetensors")
    places = Places(config=folder / "config", cache=folder / "cache")
    with HubClient(server.url, server.admin_token) as client:
        push(client, folder / "model.safetensors", parse_reference("a/b:v1"), places=places)
        sha256 = client.plan("a/b", "v1")["route"][0]["sha256"]
    path = server.hub.store.blobs.local_path(blob_key(sha256))
    address = f"/v1/repos/a/b/blobs/{sha256}"
    return Served(server, server.admin_token, address, sha256, path.read_bytes())


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    with HubServer(HubSettings(folder / "hub")) as server:
        yield _published(server, folder)


def test_a_whole_answer_names_its_digest(served: Served) -> None:
    for method in ("GET", "HEAD"):
        answer = served.get(method)
        assert answer.status_code == 200
        assert answer.content == (served.data if method == "GET" else b"")
        assert answer.headers["content-length"] == str(len(served.data))
        assert answer.headers["etag"] == f'"{served.sha256}"'
        assert answer.headers["content-digest"] == content_digest(served.sha256)
        assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
        assert answer.headers["accept-ranges"] == "bytes"
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert hashlib.sha256(served.data).hexdigest() == served.sha256


@pytest.mark.parametrize(
    ("field", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-99", 10, 100),
        ("bytes=7-", 7, None),
        ("bytes=-5", -5, None),
        ("bytes=3-999999999999", 3, None),
    ],
)
def test_a_part_is_what_was_asked_for(
    served: Served, field: str, start: int, end: int | None
) -> None:
    answer = served.get(Range=field, If_Range=f'"{served.sha256}"')
    want = served.data[start:end]
    first = start % len(served.data)
    assert answer.status_code == 206
    assert answer.content == want
    span = f"bytes {first}-{first + len(want) - 1}/{len(served.data)}"
    assert answer.headers["content-range"] == span
    assert answer.headers["repr-digest"] == content_digest(served.sha256)
    assert "content-digest" not in answer.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Range": "bytes=0-9", "If_Range": '"another"'},
        {"Range": "bytes=0-1,4-5"},
        {"Range": "bytes=9-3"},
        {"Range": "lines=1-2"},
        {"Range": "bytes=-"},
    ],
)
def test_what_is_no_single_range_gets_all(served: Served, headers: dict[str, str]) -> None:
    answer = served.get(**headers)
    assert answer.status_code == 200
    assert answer.content == served.data


def test_beyond_the_end_is_no_range(served: Served) -> None:
    answer = served.get(Range=f"bytes={len(served.data)}-")
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{len(served.data)}"
    assert answer.content == b""


def test_who_has_it_is_told_so(served: Served) -> None:
    for tags in (f'"{served.sha256}"', f'"x", W/"{served.sha256}"', "*"):
        assert served.get(If_None_Match=tags).status_code == 304
    assert served.get(If_None_Match='"x"').status_code == 200


def test_a_blob_whose_file_went_is_not_found(served: Served) -> None:
    path = served.hub.hub.store.blobs.local_path(blob_key(served.sha256))
    path.rename(path.with_suffix(".away"))
    try:
        answer = served.get()
        assert answer.status_code == 404
        assert answer.json()["type"] == "NotFoundError"
    finally:
        path.with_suffix(".away").rename(path)
    assert served.get().content == served.data


def test_a_stranger_learns_nothing(served: Served) -> None:
    assert httpx.get(served.hub.url + served.path).status_code in (401, 404)
    other = served.path.replace(served.sha256, "0" * 64)
    shown = {"Authorization": f"Bearer {served.token}"}
    assert httpx.get(served.hub.url + other, headers=shown).status_code == 404


def test_the_guides_nginx_answers_as_the_hub_does(tmp_path: Path) -> None:
    if shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin") is None:
        missing("nginx", "apt-get install nginx-light")
    with HubServer(HubSettings(tmp_path / "hub", accel="/_blobs")) as server:
        served = _published(server, tmp_path)
        port = httpx.URL(server.url).port
        with nginx(tmp_path / "nginx", tmp_path / "hub", port) as (front, _):
            url = f"http://127.0.0.1:{front}"
            check(url + served.path, served.sha256, served.token, len(served.data))
            shown = {"Authorization": f"Bearer {served.token}"}
            assert httpx.get(url + served.path, headers=shown).content == served.data
            key = blob_key(served.sha256)
            assert httpx.get(f"{url}/_blobs/{key}", headers=shown).status_code == 404
            assert httpx.get(url + served.path).status_code in (401, 404)
