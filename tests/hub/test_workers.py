"""Several stateless workers on PostgreSQL and S3: a real process, as an operator starts it."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from safetensors.numpy import save_file

from limosa.exchange.install import pull
from limosa.exchange.publish import push
from limosa.hub.client import HubClient
from limosa.hub.reference import parse_reference
from limosa.hub.settings import Places


@pytest.fixture
def workers(tmp_path, postgres_database, s3_bucket, unused_port):
    """The address of a hub of two workers, and the token of its first run."""
    log = tmp_path / "hub.log"
    command = [
        sys.executable, "-m", "limosa.cli.main", "hub", "serve", "--folder", tmp_path / "hub",
        "--database", postgres_database, "--blobs", s3_bucket, "--port", str(unused_port),
        "--workers", "2", "--redirect",
    ]  # fmt: skip
    with log.open("wb") as out:
        process = subprocess.Popen(list(map(str, command)), stdout=out, stderr=out)
    url = f"http://127.0.0.1:{unused_port}"
    try:
        wait_for(url, process, log)
        yield url, re.search(r"limosa_[0-9a-f]{64}", log.read_text())[0]
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert "Traceback" not in log.read_text()


def wait_for(url: str, process: subprocess.Popen, log: Path) -> None:
    for _ in range(600):
        try:
            if httpx.get(f"{url}/readyz", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError(f"the hub does not start:\n{log.read_text()[-2000:]}")


def models(folder: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    weights, paths = rng.normal(0, 0.02, (256, 256)).astype("f4"), []
    for number in range(1, 4):
        path = folder / f"v{number}.safetensors"
        save_file({"w": weights}, path)
        paths.append(path)
        weights = weights + rng.normal(0, 1e-6, weights.shape).astype("f4")
    return paths


def test_versions_travel_whoever_answers(workers, tmp_path):
    url, token = workers
    sender, receiver = (
        Places(tmp_path / "a", tmp_path / "a"),
        Places(tmp_path / "b", tmp_path / "b"),
    )
    paths = models(tmp_path)
    with HubClient(url, token) as client:
        for number, path in enumerate(paths, 1):
            # Each request may meet another worker.
            reference = parse_reference(f"team/net:v{number}")
            push(client, path, reference, places=sender)
        out = tmp_path / "b.safetensors"
        first = pull(client, parse_reference("team/net:v1"), out, places=receiver)
        assert first.start == ""
        second = pull(client, parse_reference("team/net:v3"), out, places=receiver)
        assert second.start
        assert second.nbytes < first.nbytes
        assert not second.fallback
        assert out.read_bytes() == paths[2].read_bytes()
        fresh = tmp_path / "c.safetensors"
        others = Places(tmp_path / "c", tmp_path / "c")
        pull(client, parse_reference("team/net:v3"), fresh, places=others)
        assert fresh.read_bytes() == paths[2].read_bytes()
        assert client.post("/v1/fsck", {"read_data": True})["problems"] == []


def test_blobs_are_handed_to_the_storage_without_the_token(workers, tmp_path):
    url, token = workers
    with HubClient(url, token) as client:
        path = models(tmp_path)[0]
        push(client, path, parse_reference("team/net:v1"), places=Places(tmp_path, tmp_path))
        step = client.plan("team/net", "v1")["route"][0]
        address = client.blob_url("team/net", step["sha256"])
    answer = httpx.get(address, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 307
    assert answer.headers["cache-control"] == "no-store"
    there = answer.headers["location"]
    assert not there.startswith(url)
    assert token not in there
    assert len(httpx.get(there).content) == step["nbytes"]
    assert httpx.get(address).status_code == 401


def test_a_worker_that_dies_is_replaced(workers):
    url, token = workers
    shown = {"Authorization": f"Bearer {token}"}
    answer = httpx.get(f"{url}/v1/whoami", headers=shown)
    assert answer.status_code == 200
    # A worker is whoever has our port open and a parent that has it, too.
    parent = subprocess.run(
        ["pgrep", "-f", url.rsplit(":", 1)[1]], capture_output=True, text=True, check=True
    ).stdout.split()[0]
    children = subprocess.run(
        ["pgrep", "-P", parent], capture_output=True, text=True, check=True
    ).stdout.split()
    os.kill(int(children[-1]), signal.SIGKILL)
    for _ in range(100):
        try:
            if httpx.get(f"{url}/v1/whoami", headers=shown, timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    pytest.fail("no worker answers any more")
