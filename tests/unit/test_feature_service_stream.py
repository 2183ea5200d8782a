"""Streams of features over a WebSocket, and clients that stall, break off or are killed."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from urllib.parse import urlsplit

import pytest

torch = pytest.importorskip("torch")
httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")

from concurrent.futures import ThreadPoolExecutor  # noqa: E402

from torch import nn  # noqa: E402
from websockets.exceptions import ConnectionClosed  # noqa: E402
from websockets.sync.client import connect  # noqa: E402

import limosa  # noqa: E402
from feature_service import Camera, Retrieval, images, network, serve  # noqa: E402
from limosa import Step  # noqa: E402
from limosa.codec.feature.wire import read_feature  # noqa: E402
from limosa.errors import TransportError  # noqa: E402
from limosa.exchange.feature_client import FeatureClient  # noqa: E402


@pytest.fixture(scope="module")
def server():
    with serve(at=("1", "3"), tasks={"class": "tail", "find": {"1": Retrieval()}}) as one:
        yield one


def film(count, speed=0.02):
    """Images that change slowly."""
    first, last = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(5)).split(1)
    return [first + last * number * speed for number in range(count)]


def raw(server):
    return connect(f"ws{server.url.removeprefix('http')}/v1/stream", compression=None)


def said(socket):
    return json.loads(socket.recv(10))


def check(found, model, image, atol=1e-5):
    with torch.inference_mode():
        assert torch.allclose(found["class"]["output"], model(image), atol=atol)


# Answers


def test_a_stream_is_answered_in_order(server):
    model, frames = network(), film(20)
    with FeatureClient(server.url, model, quality=Step(0.02), key_every=8) as client:
        for frame, found in zip(frames, client.stream(frames), strict=True):
            check(found, model, frame, atol=0.05)
            assert set(found["find"]) == {"vector", "length"}
        assert client.traffic.inputs == client.traffic.features == 20
        assert client.traffic.keys < 20
    with FeatureClient(server.url, model, quality=Step(0.02), key_every=1) as client:
        list(client.stream(frames))
        alone = client.traffic.sent
        assert client.traffic.keys == 20
    with FeatureClient(server.url, model, quality=Step(0.02)) as client:
        list(client.stream(frames))
        assert client.traffic.sent < alone


def test_answers_name_the_number_of_the_feature(server):
    camera = Camera()
    with raw(server) as socket:
        assert said(socket) == {"need": ["1"], "tasks": ["class", "find"]}
        for number, image in enumerate(images(3)):
            socket.send(camera.message(image))
            found = said(socket)
            assert (found["message"], found["number"]) == (number, number)
            assert set(found["answers"]) == {"class", "find"}
        socket.send(json.dumps({"tasks": ["find"], "answers": "limosa"}))
        assert said(socket) == {"need": ["1"], "tasks": ["find"]}
        socket.send(camera.message(images(1)[0]))
        assert set(limosa.load(socket.recv(10))) == {"find/vector", "find/length"}


def test_a_lost_feature_is_asked_for_again(server):
    camera, frames = Camera(quality=Step(0.01)), film(6, speed=0.005)
    messages = [camera.message(frame) for frame in frames[:3]]
    first, _, third = (read_feature(one, limosa.Limits())[0] for one in messages)
    assert third.base not in (None, first.digest)
    with raw(server) as socket:
        said(socket)
        socket.send(messages[0])
        assert "answers" in said(socket)
        socket.send(messages[2])  # not the second one
        found = said(socket)
        assert found["error"]["type"] == "BaseMismatchError"
        assert (found["message"], found["number"], found["key"]) == (1, 2, True)
        camera.encoder.request_key()
        socket.send(camera.message(frames[3]))
        assert "answers" in said(socket)


class Losing:
    """A socket that spoils some of the features that go through it."""

    def __init__(self, socket, spoilt):
        self._socket, self._spoilt, self._count = socket, spoilt, 0

    def __getattr__(self, name):
        return getattr(self._socket, name)

    def send(self, data):
        if isinstance(data, bytes):
            if self._count in self._spoilt:
                data = data[:-1] + bytes([data[-1] ^ 1])
            self._count += 1
        self._socket.send(data)


def test_a_client_sends_again_what_is_lost(server, monkeypatch):
    connected = FeatureClient._connect
    monkeypatch.setattr(
        FeatureClient, "_connect", lambda self, stack: Losing(connected(self, stack), {2, 7, 9})
    )
    model, frames = network(), film(12)
    with FeatureClient(server.url, model) as client:
        for frame, found in zip(frames, client.stream(frames), strict=True):
            check(found, model, frame)
        assert client.traffic.inputs == 12
        assert client.traffic.features > 14


def test_what_cannot_be_sent_again_is_an_error(server, monkeypatch):
    connected = FeatureClient._connect
    monkeypatch.setattr(
        FeatureClient, "_connect", lambda self, stack: Losing(connected(self, stack), range(99))
    )
    with FeatureClient(server.url, network()) as client, pytest.raises(limosa.ChecksumError):
        list(client.stream(film(3)))


def test_the_cloud_changes_its_mind(server, monkeypatch):
    model, frames, service = network(), film(12), server.service
    sent = []
    features = FeatureClient.features
    monkeypatch.setattr(
        FeatureClient,
        "features",
        lambda self, x, cuts: sent.append(cuts) or features(self, x, cuts),
    )
    wanted = {3: ["3"], 7: ["1", "3"]}
    try:
        with FeatureClient(server.url, model, window=2) as client:
            for number, found in enumerate(client.stream(frames, ["class"])):
                check(found, model, frames[number])
                if number in wanted:
                    service.need(wanted[number])
                    time.sleep(0.2)
    finally:
        service.need(["1", "3"])
    assert sent[0] == sent[-1] == ["1"]
    assert sent[7] == ["3"]


def test_a_stream_is_told_at_once(server):
    try:
        with raw(server) as socket:
            said(socket)
            socket.send(json.dumps({"tasks": ["class"]}))
            assert said(socket)["need"] == ["1"]
            server.service.need(["3"])
            assert said(socket) == {"need": ["3"]}
            for at in ("1", "3"):  # what was under way is answered, too
                socket.send(Camera(at=at).message(images(1)[0]))
                assert "class" in said(socket)["answers"]
            socket.send(json.dumps({"tasks": ["class", "find"]}))
            assert said(socket)["need"] == ["3", "1"]
    finally:
        server.service.need(["1", "3"])


def test_tasks_at_two_cuts_share_one_run(server):
    try:
        server.service.need(["3"])
        model, frames = network(), film(3)
        with FeatureClient(server.url, model) as client:
            for frame, found in zip(frames, client.stream(frames), strict=True):
                check(found, model, frame)
                with torch.inference_mode():
                    expected = Retrieval()(model[:2](frame))["vector"]
                assert torch.allclose(found["find"]["vector"], expected, atol=1e-6)
            assert client.traffic.features == 6
    finally:
        server.service.need(["1", "3"])


# Bad input


@pytest.mark.parametrize("text", ["{", "[]", '{"x": 1}', '{"tasks": 3}', '{"tasks": ["no"]}'])
def test_a_text_that_is_not_understood(server, text):
    with raw(server) as socket:
        said(socket)
        socket.send(text)
        assert said(socket)["error"]["type"] in ("ConfigError", "NotFoundError")
        socket.send(Camera().message(images(1)[0]))
        assert "answers" in said(socket)


def test_bad_features_spoil_no_others(server):
    camera = Camera(key_every=1)
    good = camera.message(images(1)[0])
    nan = camera.message(None, torch.full((1, 8, 4, 4), torch.nan))
    other = Camera(network(1)).message(images(1)[0])
    with raw(server) as socket:
        said(socket)
        for data in (good, b"", good[:-9], good, nan, other, os.urandom(99), good):
            socket.send(data)
        found = [said(socket) for _ in range(8)]
    kinds = [one.get("error", {}).get("type", "ok") for one in found]
    assert kinds == [
        "ok", "TruncatedError", "ChecksumError", "ok", "ConfigError", "BaseMismatchError",
        "CorruptError", "ok",
    ]  # fmt: skip
    assert [one["message"] for one in found] == list(range(8))


def test_nan_is_an_error_of_one_input(server):
    frames = film(6)
    frames[2] = frames[2] * torch.nan
    model = network()
    with FeatureClient(server.url, model) as client:
        found = list(client.stream(frames, errors="return"))
        assert isinstance(found[2], limosa.ConfigError)
        for number in (0, 1, 3, 4, 5):
            check(found[number], model, frames[number])
        with pytest.raises(limosa.ConfigError, match="NaN"):
            list(client.stream(frames))


def test_an_oversized_feature_ends_its_stream_only():
    with serve(max_message_bytes=4096) as server, raw(server) as socket, raw(server) as other:
        said(socket)
        said(other)
        socket.send(bytes(5000))
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(10)
        assert closed.value.rcvd.code == 1009
        other.send(Camera().message(images(1)[0]))
        assert "answers" in said(other)


def test_a_silent_client_is_sent_away():
    with serve(idle_s=0.3) as server, raw(server) as socket:
        said(socket)
        assert said(socket)["error"]["type"] == "TransportError"
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(10)
        assert closed.value.rcvd.code == 4408


def test_connections_without_a_request_end():
    with serve(idle_s=0.3, request_s=0.3) as server:
        address = urlsplit(server.url)
        for begun in (
            b"",
            b"POST /v1/features HTTP/1.1\r\nHost: x\r\n",
            b"POST /v1/features HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nlimosa",
        ):
            with socket.create_connection((address.hostname, address.port)) as one:
                one.sendall(begun)
                one.settimeout(5)
                answer = b""
                try:
                    while part := one.recv(4096):
                        answer += part
                except ConnectionResetError:
                    pass
                assert (b" 408 " in answer) == begun.endswith(b"limosa")


def test_a_client_that_takes_no_answers_is_sent_away():
    class Large(nn.Module):
        def forward(self, x):
            return x.new_zeros(x.shape[0], 400_000)

    with serve(tasks={"large": Large()}, idle_s=0.5, window=3) as server:
        address = urlsplit(server.url)
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.connect((address.hostname, address.port))
        with connect(f"ws{server.url.removeprefix('http')}/v1/stream", sock=one, max_queue=1) as ws:
            camera = Camera(key_every=1)
            deadline = time.monotonic() + 15
            try:
                while time.monotonic() < deadline:  # back-pressure: it blocks, or the stream ends
                    ws.send(camera.message(images(1)[0]))
                    assert server.service.budget.used <= 4 * 8 * 64 * 4
            except (ConnectionClosed, OSError):
                pass
            assert time.monotonic() < deadline
        assert httpx.get(f"{server.url}/healthz").status_code == 200


def test_a_stopping_service_says_so():
    with serve() as server:
        data = Camera().message(images(1)[0])
        with FeatureClient(server.url, network()) as client:
            server.service.stopping = True
            reply = httpx.post(f"{server.url}/v1/features", content=data)
            assert reply.status_code == 503
            assert httpx.get(f"{server.url}/readyz").status_code == 503
            with pytest.raises(TransportError):
                list(client.stream(film(2)))
            server.service.stopping = False


def test_what_is_under_way_ends_before_the_service():
    begun, gate = threading.Event(), threading.Event()

    class Slow(nn.Module):
        def forward(self, x):
            begun.set()
            gate.wait(10)
            return x.mean((1, 2, 3))

    with ThreadPoolExecutor(1) as pool:
        with serve(tasks={"slow": Slow()}) as server:
            data = Camera().message(images(1)[0])
            asked = pool.submit(httpx.post, f"{server.url}/v1/features", content=data)
            assert begun.wait(10)
            server.stop()
            threading.Timer(0.3, gate.set).start()
        assert asked.result().status_code == 200
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/healthz")


# Many clients


def tell_apart(server, clients, requests):
    """How many answers were right, when many ask at once."""
    model, chosen = network(), images(64)
    camera = Camera(model, key_every=1)
    messages = [camera.message(image) for image in chosen]
    with torch.inference_mode():
        expected = model(torch.cat(chosen))
    assert torch.cdist(expected, expected).add(torch.eye(64)).min() > 1e-3

    def ask(client):
        right = 0
        with httpx.Client() as session:
            for number in range(client, requests, clients):
                content = messages[number % 64]
                reply = session.post(f"{server.url}/v1/features?task=class", content=content)
                assert reply.status_code == 200, reply.text
                data = reply.json()["answers"]["class"]["output"]["data"][0]
                right += torch.allclose(torch.tensor(data), expected[number % 64], atol=1e-5)
        return right

    with ThreadPoolExecutor(clients) as pool:
        return sum(pool.map(ask, range(clients)))


def test_no_answer_is_lost_or_mixed_up(server):
    assert tell_apart(server, 32, 1000) == 1000
    text = server.service.metrics.text().decode()
    batches = [line for line in text.splitlines() if line.startswith("limosa_feature_batch_count")]
    assert float(batches[0].split()[1]) < 900  # some came together


VICTIM = """
import sys
from feature_service import Camera, images, network
from websockets.sync.client import connect
import socket, itertools
host, port = sys.argv[1].removeprefix("http://").split(":")
data = Camera(key_every=1).message(images(1)[0])
print("ready", flush=True)
for turn in itertools.count():
    if turn % 2:
        with connect(f"ws://{host}:{port}/v1/stream", compression=None) as ws:
            for _ in range(5):
                ws.send(data)
    else:
        head = f"POST /v1/features HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: {len(data)}"
        head += "\\r\\n\\r\\n"
        with socket.create_connection((host, int(port))) as one:
            one.sendall(head.encode())
            for at in range(0, len(data), 500):
                one.sendall(data[at : at + 500])
            one.recv(100)
"""


def test_clients_that_are_killed_disturb_no_others(server):
    support = Path(__file__).parents[1] / "support"
    environment = {**os.environ, "PYTHONPATH": str(support)}
    command = [sys.executable, "-c", VICTIM, server.url]
    rng = random.Random(0)
    victims = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    try:
        for victim in victims:
            assert victim.stdout.readline() == b"ready\n", victim.stderr.read()

        def kill():
            for victim in victims:
                time.sleep(rng.uniform(0.05, 0.4))
                victim.send_signal(signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        assert tell_apart(server, 8, 300) == 300
        killer.join()
    finally:
        for victim in victims:
            victim.kill()
            victim.wait()
            victim.stdout.close()
            victim.stderr.close()
    assert tell_apart(server, 4, 64) == 64
    end = time.monotonic() + 5
    while server.service.budget.used and time.monotonic() < end:
        time.sleep(0.02)
    assert server.service.budget.used == 0
    assert not server.service._listeners


def test_a_broken_connection_is_a_typed_error():
    with serve() as server, FeatureClient(server.url, network()) as client:
        stream = client.stream(film(200))
        next(stream)
        threading.Thread(target=server.stop).start()
        with pytest.raises(TransportError):
            deque(stream, maxlen=0)
