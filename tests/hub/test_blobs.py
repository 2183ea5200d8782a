"""Blobs in a folder, in memory and in S3 do the same; and what only one of them does."""

import os
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from urllib.request import urlopen

import pytest

from limosa.errors import ConfigError, NotFoundError, TransportError
from limosa.hub.store.blobs import BlobStore, blob_key
from limosa.testing.blob_store import BlobStoreSuite

KEY = blob_key("ab" * 32)


class TestFolder(BlobStoreSuite):
    @pytest.fixture
    def open_store(self, tmp_path: Path):
        return lambda: BlobStore.open(str(tmp_path / "a folder"))


class TestFolderByUrl(BlobStoreSuite):
    @pytest.fixture
    def open_store(self, tmp_path: Path):
        return lambda: BlobStore.open((tmp_path / "a folder").as_uri())


class TestMemory(BlobStoreSuite):
    @pytest.fixture
    def open_store(self):
        # Memory has no address that a second opening could find.
        store = BlobStore.open("memory://")
        return lambda: store


class TestS3(BlobStoreSuite):
    @pytest.fixture
    def open_store(self, s3_bucket: str):
        return lambda: BlobStore.open(s3_bucket)


def kill_while_it_puts(root: Path) -> None:
    """A process that is killed long before it has put a file of 4 GiB, all of it a hole."""
    code = (
        "import sys; from pathlib import Path; from limosa.hub.store.blobs import BlobStore\n"
        f"BlobStore.open(sys.argv[1]).put_file({KEY!r}, Path(sys.argv[2]))"
    )
    source = root.parent / "source"
    source.touch()
    os.truncate(source, 4 << 30)
    process = subprocess.Popen([sys.executable, "-c", code, str(root), str(source)])
    while not list(root.rglob("*#*")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()


def test_a_killed_writer_leaves_nothing_that_shows(tmp_path: Path):
    root = tmp_path / "store"
    store = BlobStore.open(str(root))
    kill_while_it_puts(root)
    assert [path.name for path in root.rglob("*") if path.is_file()]
    assert store.size(KEY) is None
    assert list(store.list("blobs/")) == []
    now = datetime.now(timezone.utc)
    # One that may still be at work is left alone.
    assert store.sweep(now - timedelta(hours=1)) == 0
    store.put_bytes(KEY, b"whole")
    store.sweep(now + timedelta(hours=1))
    assert [path.name for path in root.rglob("*") if path.is_file()] == [KEY.rsplit("/", 1)[1]]


@pytest.fixture
def small_disk(tmp_path: Path):
    """A folder on a disk of 2 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_said_to_be_full(tmp_path: Path, small_disk: Path):
    store, source = BlobStore.open(str(small_disk)), tmp_path / "large"
    source.write_bytes(b"x" * (20 << 20))
    for put in (
        lambda: store.put_file(KEY, source),
        lambda: store.put_bytes(KEY, source.read_bytes()),
    ):
        with pytest.raises(TransportError, match=r"the disk is full.*free some room"):
            put()
    assert store.size(KEY) is None
    assert not [path for path in small_disk.rglob("*") if path.is_file()]


def test_a_disk_too_full_to_fetch_to(tmp_path: Path, small_disk: Path):
    store = BlobStore.open(str(tmp_path / "roomy"))
    store.put_bytes(KEY, b"x" * (4 << 20))
    with pytest.raises(TransportError, match=r"the disk is full.*free some room"):
        store.fetch(KEY, small_disk / "fetched")
    assert list(small_disk.iterdir()) == []


def test_a_folder_that_went_away_is_noticed(tmp_path: Path):
    store = BlobStore.open(str(tmp_path / "store"))
    store.check()
    (tmp_path / "store").rmdir()
    with pytest.raises(TransportError, match="not there"):
        store.check()


def test_fetch_replaces_in_one_step(tmp_path: Path):
    store, path = BlobStore.open("memory://"), tmp_path / "fetched"
    path.write_bytes(b"old")
    with pytest.raises(NotFoundError):
        store.fetch(KEY, path)
    assert path.read_bytes() == b"old"
    store.put_bytes(KEY, b"new")
    store.fetch(KEY, path)
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_presigned_addresses_need_no_secret(s3_bucket: str):
    store = BlobStore.open(s3_bucket)
    store.put_bytes(KEY, b"for anybody")
    with urlopen(store.presigned(KEY, 60)) as answer:
        assert answer.read() == b"for anybody"


def test_presigned_addresses_name_the_public_end(s3_bucket: str):
    store = BlobStore.open(s3_bucket + "&public=https://blobs.example")
    address = store.presigned(KEY, 60)
    assert address.startswith("https://blobs.example/")
    assert "X-Amz-Expires=60" in address
    store.put_bytes(KEY, b"within")
    assert store.get_range(KEY, 0, 6) == b"within"


def test_folders_and_memory_sign_nothing(tmp_path: Path):
    assert BlobStore.open(str(tmp_path)).presigned(KEY, 60) is None
    assert BlobStore.open("memory://").presigned(KEY, 60) is None


def test_secrets_come_before_the_address(s3_bucket: str):
    secrets = {"AWS_ACCESS_KEY_ID": "someone", "AWS_SECRET_ACCESS_KEY": "else"}
    address = BlobStore.open(s3_bucket, secrets=secrets).presigned(KEY, 60)
    assert "X-Amz-Credential=someone%2F" in address


def test_a_prefix_keeps_two_hubs_apart(s3_bucket: str):
    place, _, query = s3_bucket.partition("?")
    one, two = (BlobStore.open(f"{place}/{name}?{query}") for name in ("one", "two"))
    one.put_bytes(KEY, b"1")
    assert two.size(KEY) is None
    assert [key for key, _, _ in one.list("blobs/")] == [KEY]
    assert list(two.list("blobs/")) == []


def test_a_bucket_that_is_not_there_is_noticed(s3_bucket: str):
    place, _, query = s3_bucket.partition("?")
    with pytest.raises(TransportError):
        BlobStore.open(f"{place}-gone?{query}").check()


def test_storage_that_does_not_answer(unused_port: int):
    url = f"s3://bucket?endpoint=http://127.0.0.1:{unused_port}&region=us-east-1"
    secrets = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "secret-of-mine"}
    store = BlobStore.open(url, secrets=secrets)
    with pytest.raises(TransportError, match="does not answer") as caught:
        store.check()
    assert "secret-of-mine" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/x",
        "s3://",
        "s3://bucket?colour=red",
        "s3://bucket?virtual_hosted_style_request=7",
    ],
)
def test_addresses_that_are_none(url: str):
    with pytest.raises(ConfigError):
        BlobStore.open(url)
