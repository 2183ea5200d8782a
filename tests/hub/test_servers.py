"""The servers that other tests lean on are real, and new for each test."""

import http.server
import threading

import pytest
import servers
import sqlalchemy as sa

from limosa.hub.store.blobs import BlobStore

PNG = b"\x89PNG\r\n\x1a\n"


def test_postgresql_answers(postgres_url: str):
    engine = sa.create_engine(postgres_url)
    with engine.connect() as connection:
        version = connection.execute(sa.text("SELECT version()")).scalar_one()
        assert version.startswith("PostgreSQL 1")
        assert connection.execute(sa.text("SHOW fsync")).scalar_one() == "off"
    engine.dispose()


@pytest.mark.parametrize("again", range(2))
def test_each_test_has_a_database_of_its_own(postgres_database: str, again: int):
    engine = sa.create_engine(postgres_database)
    # Left open, and with a table in it: dropping the database has to cope, and the next test
    # could not make the table again.
    connection = engine.connect()
    connection.execute(sa.text("CREATE TABLE t (n int)"))
    connection.execute(sa.text("INSERT INTO t VALUES (1)"))
    assert connection.execute(sa.text("SELECT count(*) FROM t")).scalar_one() == 1
    connection.commit()


def test_a_stopped_database_can_be_told():
    programs = servers.postgres_programs()
    if programs is None:
        servers.missing("PostgreSQL", "apt-get install postgresql")
    cluster = servers.Postgres(programs)
    cluster.start()
    url = cluster.url()
    cluster.stop()
    with pytest.raises(sa.exc.OperationalError):
        sa.create_engine(url).connect()
    assert not cluster.folder.exists()


@pytest.mark.parametrize("again", range(2))
def test_each_test_has_a_bucket_of_its_own(s3_bucket: str, again: int):
    store = BlobStore.open(s3_bucket)
    assert list(store.list("blobs/")) == []
    store.put_bytes("blobs/a", b"in S3")
    assert store.get_range("blobs/a", 3, 5) == b"S3"


class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"<title>hello</title><p id=p>a</p><script>p.textContent='ran'</script>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def hello_url():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hello)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_the_browser_shows_a_page(page, hello_url: str):
    page.goto(hello_url)
    assert page.title() == "hello"
    assert page.text_content("#p") == "ran"
    picture = page.screenshot()
    assert picture.startswith(PNG)
    assert len(picture) > 1000


@pytest.mark.parametrize(("ci", "outcome"), [("", "Skipped"), ("true", "Failed")])
def test_missing_software_fails_in_ci(monkeypatch: pytest.MonkeyPatch, ci: str, outcome: str):
    monkeypatch.setenv("CI", ci)
    with pytest.raises(
        BaseException, match="Nothing is missing; run: apt-get install nothing"
    ) as caught:
        servers.missing("Nothing", "apt-get install nothing")
    assert caught.type.__name__ == outcome
