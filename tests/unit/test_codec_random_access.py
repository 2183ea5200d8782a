"""One tensor, or a few rows of it, without the rest: in memory, and from a web server."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from codec_models import every_dtype, trained, tuned

import limosa
from limosa.codec.constants import CHUNK_UNITS
from limosa.errors import ConfigError, CorruptError, NotFoundError, TransportError
from limosa.files.http_range import HttpRangeFile


class Counting:
    """Bytes that count what is read of them."""

    def __init__(self, data):
        self.data = data
        self.size = len(data)
        self.read = 0

    def read_at(self, offset, count):
        self.read += count
        return self.data[offset : offset + count]


class Server(HTTPServer):
    """Serves one file; *mood* is how: ranges, whole, missing, short, changing or failing once."""

    def __init__(self, data):
        super().__init__(("127.0.0.1", 0), Handler)
        self.data = data
        self.mood = "ranges"
        self.requests = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/model.limosa"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.requests += 1
        if server.mood == "missing":
            self.send_error(404)
            return
        if server.mood == "failing once" and server.requests % 2:
            self.send_error(503)
            return
        data = server.data
        first, last = self.headers["Range"].removeprefix("bytes=").split("-")
        part = data[int(first) : int(last) + 1]
        self.send_response(200 if server.mood == "whole" else 206)
        if server.mood != "whole":
            end = int(first) + len(part) - 1
            self.send_header("Content-Range", f"bytes {first}-{end}/{len(data)}")
        tag = server.requests if server.mood == "changing" else 1
        self.send_header("ETag", f'"{tag}"')
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part[: len(part) // 2] if server.mood == "short" else part)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    data = limosa.save(trained(rows=2000))
    with Server(data) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "index",
    [
        np.s_[:],
        np.s_[3:40],
        np.s_[40:3],
        np.s_[::7],
        np.s_[::-3],
        np.s_[-5:],
        np.s_[7],
        np.s_[-1],
        np.s_[2:5, ::2],
        np.s_[..., 1:3],
        np.s_[None, 2:4],
        np.s_[100:200],
    ],
)
def test_slices_are_what_indexing_gives(index):
    model = {name: array for name, array in every_dtype().items() if array.ndim == 2}
    with limosa.open_file(limosa.save(model)) as file:
        for name, array in model.items():
            try:
                expected = array[index]
            except IndexError:
                continue
            found = file.get_slice(name)[index]
            assert found.dtype == array.dtype
            assert found.shape == expected.shape, name
            assert found.tobytes() == expected.tobytes(), name


@pytest.mark.parametrize("dtype", ["f4", "f8", "u1"])
def test_slices_across_chunks(dtype):
    array = np.random.default_rng(0).integers(0, 200, (CHUNK_UNITS // 100, 333)).astype(dtype)
    base = {"w": array + array.dtype.type(1)}
    for held in (None, base):
        with limosa.open_file(limosa.save({"w": array}, base=held), base=held) as file:
            rows = file.get_slice("w")
            for start in range(0, len(array), 501):
                assert np.array_equal(rows[start : start + 37], array[start : start + 37])


def test_a_slice_reads_only_its_chunks():
    model = trained(rows=8000)
    source = Counting(limosa.save(model))
    with limosa.open_file(source) as file:
        source.read = 0
        assert np.array_equal(file.get_slice("embed.weight")[10:12], model["embed.weight"][10:12])
        assert source.read < 4 * CHUNK_UNITS
        source.read = 0
        file.get_tensor("norm.bias")
        assert source.read < 4000


def test_a_scalar_and_an_index_that_is_out_of_range():
    with limosa.open_file(limosa.save({"s": np.float32(3), "w": np.ones(3, "f4")})) as file:
        assert file.get_slice("s")[()] == 3
        assert file.get_slice("w").get_shape() == [3]
        assert file.get_slice("w").get_dtype() == "F32"
        with pytest.raises(IndexError):
            file.get_slice("w")[3]


def test_tensors_from_a_web_server(server):
    model = trained(rows=2000)
    with limosa.open_file(HttpRangeFile(server.url)) as file:
        asked = server.requests
        assert asked <= 2
        assert np.array_equal(file.get_tensor("norm.bias"), model["norm.bias"])
        assert np.array_equal(file.get_slice("embed.weight")[5:9], model["embed.weight"][5:9])
        assert server.requests - asked <= 2


def test_the_first_layer_from_a_web_server(server):
    model = trained(rows=2000)
    server.data = limosa.save(model, quality=[limosa.Target(bits=3), limosa.Lossless()])
    with limosa.open_file(HttpRangeFile(server.url), layers=1) as file:
        coarse = file.get_tensor("embed.weight")
    with limosa.open_file(HttpRangeFile(server.url)) as file:
        assert np.array_equal(file.get_tensor("embed.weight"), model["embed.weight"])
    assert np.array_equal(coarse, limosa.load(server.data, layers=1)["embed.weight"])


def test_an_update_from_a_web_server(server):
    base = trained()
    server.data = limosa.save(tuned(base), base=base)
    with limosa.open_file(HttpRangeFile(server.url), base=base) as file:
        found = file.get_tensor("embed.weight")
    assert np.array_equal(found, tuned(base)["embed.weight"])


@pytest.mark.parametrize(
    ("mood", "error"),
    [
        ("missing", NotFoundError),
        ("whole", TransportError),
        ("short", TransportError),
        ("changing", CorruptError),
    ],
)
def test_a_web_server_that_misbehaves(server, mood, error, monkeypatch):
    monkeypatch.setattr("limosa.files.http_range._PAUSE", 0.001)
    server.mood = mood
    with pytest.raises(error):
        limosa.open_file(HttpRangeFile(server.url))


def test_a_passing_failure_is_tried_again(server, monkeypatch):
    monkeypatch.setattr("limosa.files.http_range._PAUSE", 0.001)
    server.mood = "failing once"
    with limosa.open_file(HttpRangeFile(server.url)) as file:
        assert len(file) == 4


def test_other_urls_are_refused():
    with pytest.raises(ConfigError):
        HttpRangeFile("file:///etc/passwd")


def test_nobody_answers(monkeypatch):
    monkeypatch.setattr("limosa.files.http_range._PAUSE", 0.001)
    with pytest.raises(TransportError):
        HttpRangeFile("http://127.0.0.1:1/", timeout=1)


def test_a_pipe_has_no_random_access():
    import io

    data = limosa.save({"w": np.ones(3, "f4")})
    with pytest.raises(ConfigError):
        limosa.open_file(io.BytesIO(data))
