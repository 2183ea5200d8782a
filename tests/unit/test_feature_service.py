"""The service of features over HTTP: a real server on loopback, asked by real clients."""

from __future__ import annotations

import json
import threading
import time

import pytest

torch = pytest.importorskip("torch")
httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")

from concurrent.futures import ThreadPoolExecutor  # noqa: E402

from torch import nn  # noqa: E402

import limosa  # noqa: E402
from feature_service import Camera, Retrieval, Touchy, images, network, serve  # noqa: E402
from limosa import BaseMismatchError, ConfigError, Step  # noqa: E402
from limosa.errors import NotFoundError, TransportError  # noqa: E402
from limosa.exchange.feature_client import FeatureClient  # noqa: E402
from limosa.exchange.feature_service.naming import find_model, read_tasks  # noqa: E402
from limosa.exchange.feature_service.service import FeatureService  # noqa: E402
from limosa.exchange.feature_service.settings import Settings  # noqa: E402
from limosa.hub.problems import from_problem  # noqa: E402
from limosa.hub.rates import Rates  # noqa: E402


@pytest.fixture(scope="module")
def server():
    with serve(at=("1", "3"), tasks={"class": "tail", "find": {"1": Retrieval()}}) as one:
        yield one


@pytest.fixture(scope="module")
def narrow():
    """A service with bounds that are easily reached."""
    with serve(tasks={"class": "tail"}, max_message_bytes=4096, request_s=0.5) as one:
        yield one


def post(server, data, tasks=(), **headers):
    url = f"{server.url}/v1/features"
    return httpx.post(url, params={"task": list(tasks)}, content=data, headers=headers)


def ask_once(server, model, inputs):
    with FeatureClient(server.url, model) as client:
        return client.ask(inputs)


def refused(server, data, status, kind, tasks=()):
    reply = post(server, data, tasks)
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    problem = reply.json()
    assert problem["type"] == kind
    assert problem["status"] == status
    assert type(from_problem(problem)).__name__ == kind or status in (429, 503)
    # The service goes on.
    assert post(server, Camera().message(images(1)[0])).status_code == 200
    return problem


# Answers


def test_answers_are_the_whole_models(server):
    model = network()
    with FeatureClient(server.url, model) as client:
        for image in (*images(3), torch.cat(images(4))):
            found = client.ask(image)
            assert list(found) == ["class", "find"]
            with torch.inference_mode():
                assert torch.allclose(found["class"]["output"], model(image), atol=1e-6)
                expected = Retrieval()(model[:2](image))
            for name, value in expected.items():
                assert torch.allclose(found["find"][name], value, atol=1e-6)
        # One upload for both tasks.
        assert client.traffic.features == client.traffic.inputs == 4


def test_answers_come_as_json(server):
    model, image = network(), images(1)[0]
    found = post(server, Camera(model).message(image), ["class"]).json()
    output = found["answers"]["class"]["output"]
    assert (output["dtype"], output["shape"]) == ("F32", [1, 5])
    with torch.inference_mode():
        assert torch.allclose(torch.tensor(output["data"]), model(image), atol=1e-6)


def test_answers_come_as_a_bitstream(server):
    reply = post(server, Camera().message(images(1)[0]), Accept="application/vnd.limosa")
    assert reply.headers["content-type"] == "application/vnd.limosa"
    assert set(limosa.load(reply.content)) == {"class/output", "find/vector", "find/length"}


def test_lossy_features_are_smaller_and_near(server):
    model, image = network(), torch.cat(images(8))
    with (
        FeatureClient(server.url, model) as exact,
        FeatureClient(server.url, model, quality=Step(0.05)) as coarse,
    ):
        near = coarse.ask(image, ["class"])["class"]["output"]
        assert torch.allclose(near, exact.ask(image, ["class"])["class"]["output"], atol=0.05)
        assert coarse.traffic.sent < exact.traffic.sent / 2


def test_a_profile_is_of_both_sides():
    channels = limosa.Channels(
        1, torch.arange(8).flip(0).int().numpy(), torch.ones(8).float().numpy()
    )
    model = network()
    names = Camera(model).head.names
    profile = limosa.FeatureProfile({names[0]: channels})
    from limosa.exchange.feature_service.server import Server

    service = FeatureService(network(), "1", {"class": "tail"}, profile=profile)
    with Server(service) as one:
        with pytest.raises(BaseMismatchError, match="another profile"):
            FeatureClient(one.url, model)
        with FeatureClient(one.url, model, profile=profile, quality=Step(0.01)) as client:
            found = client.ask(images(1)[0])["class"]["output"]
    with torch.inference_mode():
        assert torch.allclose(found, model(images(1)[0]), atol=0.02)


def test_one_task_spoils_no_other_feature_and_no_other_task():
    tasks = {"class": "tail", "touchy": Touchy()}
    with serve(tasks=tasks, wait_ms=50) as server, ThreadPoolExecutor(4) as pool:
        good, bad = images(2)
        camera = Camera(key_every=1)
        bad = camera.crossing(bad) + 1000
        messages = [camera.message(good), camera.message(good, bad)] * 2
        replies = list(pool.map(lambda one: post(server, one), messages))
    assert [reply.status_code for reply in replies] == [200, 422, 200, 422]
    assert "touchy" in replies[1].json()["detail"]
    assert "touched" not in replies[1].text
    answers = replies[0].json()["answers"]
    with torch.inference_mode():
        model = network()
        assert torch.allclose(torch.tensor(answers["class"]["output"]["data"]), model(good))
        doubled = 2 * model[:2](good).sum((1, 2, 3))
        assert torch.allclose(torch.tensor(answers["touchy"]["output"]["data"]), doubled)


def test_a_task_without_an_axis_of_the_batch():
    with serve(tasks={"sum": lambda x: x.sum()}, wait_ms=50) as server:
        model = network()

        chosen = images(4)
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda image: ask_once(server, model, image), chosen))
    for image, one in zip(chosen, found, strict=True):
        with torch.inference_mode():
            assert torch.allclose(one["sum"]["output"], model[:2](image).sum(), rtol=1e-5)


def test_several_tensors_cross():
    class Skipping(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            a = self.one(x)
            return self.two(a) + a.relu() * x

    torch.manual_seed(0)
    model = Skipping().eval()
    x = torch.randn(3, 4)
    with serve(model, at=("x,one",), tasks={"all": "tail"}) as server:
        found = ask_once(server, model, x)["all"]["output"]
    with torch.inference_mode():
        assert torch.allclose(found, model(x), atol=1e-6)


# What a front end is told


def test_the_service_says_what_it_needs(server):
    found = httpx.get(f"{server.url}/v1/cuts").json()
    assert found["need"] == ["1"]
    assert found["tasks"] == {"class": ["1", "3"], "find": ["1"]}
    assert found["model"] == limosa_digest(network())
    assert found["cuts"]["3"]["profile"] is False
    assert found["limits"]["max_message_bytes"] == 8 * 2**20


def limosa_digest(model):
    from limosa.torch import model_digest

    return model_digest(model).hex()


def test_needs_change(server):
    service = server.service
    try:
        service.need(["3"])
        assert service.needed(["class"]) == ["3"]
        assert service.needed(["class", "find"]) == ["3", "1"]
        assert service.needed(["find"]) == ["1"]
        with FeatureClient(server.url, network()) as client:
            client.ask(images(1)[0], ["class"])
            assert client.traffic.elements == 8 * 8 * 8
        with pytest.raises(NotFoundError):
            service.need(["9"])
    finally:
        service.need(["1"])


def test_health_and_metrics(server):
    post(server, Camera().message(images(1)[0]))
    assert httpx.get(f"{server.url}/healthz").text == "ok\n"
    assert httpx.get(f"{server.url}/readyz").text == "ready\n"
    text = httpx.get(f"{server.url}/metrics").text
    for line in (
        'limosa_features_total{outcome="ok",way="post"}',
        'limosa_feature_tasks_total{task="find"}',
        "limosa_feature_batch_bucket",
        'limosa_feature_waiting{cut="3"} 0.0',
        "limosa_feature_pending_bytes 0.0",
    ):
        assert line in text


# Bad input, a typed error for that client alone


def test_another_model(server):
    problem = refused(server, Camera(network(1)).message(images(1)[0]), 409, "BaseMismatchError")
    assert "(1)" in problem["allowed"]
    with pytest.raises(BaseMismatchError, match="another model"):
        FeatureClient(server.url, network(1))


def test_another_cut(server):
    data = Camera(at="0").message(images(1)[0])
    refused(server, data, 409, "BaseMismatchError")
    data = Camera(at="3").message(images(1)[0])
    problem = refused(server, data, 409, "BaseMismatchError", ["find"])
    assert problem["allowed"] == "1"


def test_every_truncation(narrow):
    data = Camera().message(images(1)[0][:, :, :3, :3])
    with httpx.Client() as client:
        for size in range(0, len(data), 7):
            reply = client.post(f"{narrow.url}/v1/features", content=data[:size])
            assert reply.status_code == 400
            assert reply.json()["type"] in ("TruncatedError", "ChecksumError", "CorruptError")


def test_every_flipped_byte(narrow):
    data = Camera().message(images(1)[0][:, :, :3, :3])
    with httpx.Client() as client:
        for at in range(0, len(data), 5):
            spoiled = bytearray(data)
            spoiled[at] ^= 0x55
            reply = client.post(f"{narrow.url}/v1/features", content=bytes(spoiled))
            assert reply.status_code == 400


def test_a_lost_base(server):
    camera = Camera(quality=Step(0.1))
    camera.message(images(1)[0])
    data = camera.message(images(1)[0] * 1.01)
    problem = refused(server, data, 409, "BaseMismatchError")
    assert problem["remedy"] == "ask the sender for a key feature"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan(server, value):
    camera = Camera()
    spoiled = camera.crossing(images(1)[0]).clone()
    spoiled[0, 1, 2, 3] = value
    refused(server, camera.message(None, spoiled), 422, "ConfigError")


def test_other_tensors_than_those_that_cross(server):
    from limosa.torch.dtypes import to_tensor

    data = Camera().encoder.encode({"y": to_tensor("y", torch.ones(1, 8, 8, 8))})
    refused(server, data, 422, "ConfigError")


def test_a_shape_that_no_task_takes(server):
    refused(server, Camera().message(None, torch.ones(1, 3, 2)), 422, "ConfigError")


def test_a_task_that_is_not_there(server):
    data = Camera().message(images(1)[0])
    refused(server, data, 404, "NotFoundError", ["colour"])
    with FeatureClient(server.url, network()) as client, pytest.raises(ConfigError):
        client.ask(images(1)[0], ["colour"])


def test_an_oversized_message(narrow):
    data = Camera().message(torch.randn(1, 3, 32, 32))
    assert len(data) > 4096
    problem = refused(narrow, data, 413, "LimitError")
    assert problem["allowed"] == "4096"
    # Not announced, but sent piece by piece.
    reply = httpx.post(f"{narrow.url}/v1/features", content=(data[i : i + 99] for i in range(9999)))
    assert reply.status_code == 413
    with FeatureClient(narrow.url, network()) as client, pytest.raises(limosa.LimitError):
        client.ask(torch.randn(1, 3, 32, 32))


def test_a_small_message_of_a_huge_tensor(narrow):
    data = Camera().message(None, torch.zeros(1, 8, 2048, 2048))
    assert len(data) < 4096
    refused(narrow, data, 413, "LimitError")


# Bounds


class Slow(nn.Module):
    def __init__(self, gate):
        super().__init__()
        self.gate = gate

    def forward(self, x):
        self.gate.wait(10)
        return x.mean((1, 2, 3))


def test_a_full_queue_is_429_and_memory_is_bounded():
    gate = threading.Event()
    bounds = {"queue": 3, "batch": 2, "wait_ms": 0}
    with serve(tasks={"slow": Slow(gate)}, **bounds) as server:
        data = Camera().message(images(1)[0])
        with ThreadPoolExecutor(12) as pool:
            asked = [pool.submit(post, server, data) for _ in range(12)]
            end = time.monotonic() + 60
            while sum(one.done() for one in asked) < 7 and time.monotonic() < end:
                time.sleep(0.01)
            batcher = server.service._batchers["1"]
            assert len(batcher) <= 3
            assert server.service.budget.used <= 5 * 8 * 64 * 4
            gate.set()
            replies = [one.result() for one in asked]
        statuses = [reply.status_code for reply in replies]
        assert statuses.count(429) >= 7
        assert statuses.count(200) == 12 - statuses.count(429)
        assert all(int(r.headers["retry-after"]) >= 1 for r in replies if r.status_code == 429)
        assert post(server, data).status_code == 200
        assert server.service.budget.used == 0


def test_bytes_under_way_are_bounded():
    gate = threading.Event()
    with serve(tasks={"slow": Slow(gate)}, max_pending_bytes=5000) as server:
        data = Camera().message(images(1)[0])
        with ThreadPoolExecutor(6) as pool:
            asked = [pool.submit(post, server, data) for _ in range(6)]
            end = time.monotonic() + 60
            while sum(one.done() for one in asked) < 4 and time.monotonic() < end:
                time.sleep(0.01)
            assert server.service.budget.used <= 5000
            gate.set()
        assert sorted(one.result().status_code for one in asked) == [200] * 2 + [429] * 4


def test_a_client_tries_again_when_the_service_is_busy():
    with serve(tasks={"class": "tail"}, rate=3, burst=1) as server:
        with FeatureClient(server.url, network()) as client:
            for image in images(3):
                client.ask(image)
        time.sleep(0.4)
        with FeatureClient(server.url, network(), retries=0) as client:
            client.ask(images(1)[0])
            with pytest.raises(TransportError, match="too many features"):
                client.ask(images(1)[0])


def test_addresses_are_forgotten():
    rates = Rates(rate=1, burst=1)
    for number in range(5000):
        rates.delay(str(number))
    assert len(rates) == 4096


def test_too_many_connections():
    gate = threading.Event()
    with serve(tasks={"slow": Slow(gate)}, max_connections=2) as server:
        data = Camera().message(images(1)[0])
        with ThreadPoolExecutor(2) as pool:
            held = [pool.submit(post, server, data) for _ in range(2)]
            end = time.monotonic() + 60
            while server.service.budget.used < 2 * 8 * 64 * 4 and time.monotonic() < end:
                time.sleep(0.01)
            reply = post(server, data)
            assert reply.status_code == 503
            assert reply.json()["type"] == "TransportError"
            assert httpx.get(f"{server.url}/healthz").status_code == 200
            gate.set()
            assert [one.result().status_code for one in held] == [200, 200]


def test_no_service():
    with pytest.raises(TransportError):
        FeatureClient("http://127.0.0.1:9", network())


# What goes in


@pytest.mark.parametrize(
    ("at", "tasks", "message"),
    [
        ([], {"a": "tail"}, "a cut and a task"),
        ("1", {}, "a cut and a task"),
        ("1", {"a b": "tail"}, "bad name"),
        ("1", {"a": 3}, "no task"),
        ("1", {"a": {"3": "tail"}}, "no such cut"),
        (["1", "3"], {"a": Retrieval()}, "which cut"),
        ("nine", {"a": "tail"}, "no such module"),
    ],
)
def test_impossible_services(at, tasks, message):
    with pytest.raises(ConfigError, match=message):
        FeatureService(network(), at, tasks)


def test_settings_are_checked():
    with pytest.raises(ConfigError, match="queue"):
        Settings(queue=0)


def test_models_and_tasks_have_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "named_for_a_test.py").write_text(
        "from torch import nn\ndef make():\n    return nn.Linear(2, 2)\nhead = nn.Linear(2, 1)\n"
    )
    assert isinstance(find_model("named_for_a_test:make"), nn.Linear)
    tasks = read_tasks(["a=tail", "b@x=named_for_a_test:head", "b@y=tail"])
    assert tasks["a"] == "tail"
    assert sorted(tasks["b"]) == ["x", "y"]
    for bad in ("a", "a=", "a@=tail", "a=nine:one", "a=named_for_a_test:two"):
        with pytest.raises(ConfigError):
            read_tasks([bad])
    with pytest.raises(ConfigError, match="twice"):
        read_tasks(["a=tail", "a=tail"])
    with pytest.raises(ConfigError):
        find_model("math:pi")


def test_an_exported_model(tmp_path):
    model = network()
    path = tmp_path / "model.pt2"
    exported = torch.export.export(
        model, (torch.randn(2, 3, 8, 8),), dynamic_shapes=({0: torch.export.Dim("n")},)
    )
    torch.export.save(exported, path)
    loaded = find_model(str(path))
    image = images(1)[0]
    with serve(loaded, at=("relu_default",), tasks={"class": "tail"}) as server:
        found = ask_once(server, find_model(str(path)), image)["class"]["output"]
    with torch.inference_mode():
        assert torch.allclose(found, model(image), atol=1e-6)


def test_json_of_the_description_is_plain(server):
    json.dumps(server.service.describe())
