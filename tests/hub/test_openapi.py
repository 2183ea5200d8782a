"""The hub against its own OpenAPI schema: whatever is sent, the answer is one that it announces."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from limosa.demo import models
from limosa.exchange.hub_server import HubServer
from limosa.exchange.publish import push
from limosa.hub.client import HubClient
from limosa.hub.reference import parse_reference
from limosa.hub.server.settings import HubSettings
from limosa.hub.settings import Places

CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance,
    response_schema_conformance,
]  # fmt: skip
BOUNDS = settings(
    max_examples=10, deadline=None, derandomize=True,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def hub(tmp_path_factory, request):
    """A hub with one version; its address and an admin's token."""
    folder, database = tmp_path_factory.mktemp("openapi"), ""
    if request.param == "postgresql":
        postgres = request.getfixturevalue("postgres")
        database = postgres.url(postgres.new_database())
    with HubServer(HubSettings(folder / "hub", database=database, rate=0)) as server:
        with HubClient(server.url, server.admin_token) as client:
            places = Places(folder / "a", folder / "a")
            push(client, models()[0], parse_reference("team/net:v1"), places=places)
        yield server.url, server.admin_token


@pytest.fixture(scope="module")
def operations(hub):
    """All of the schema."""
    described = schemathesis.openapi.from_url(f"{hub[0]}/openapi.json")
    found = [result.ok() for result in described.get_all_operations()]
    assert len(found) > 25
    return found


def each(operations, check) -> None:
    """Call *check* with made-up requests of each operation; tell all that fail, by name."""
    failures = []
    for operation in operations:

        @BOUNDS
        @given(case=operation.as_strategy())
        def one(case):
            check(case)

        try:
            one()
        except Exception as error:  # told below, with all others
            failures.append(f"{operation.label}: {error}")
    assert not failures, "\n\n".join(failures)


def test_an_admin_gets_what_is_announced(hub, operations):
    _, token = hub

    def check(case):
        answer = case.call(headers={"Authorization": f"Bearer {token}"}, allow_redirects=False)
        case.validate_response(answer, checks=CHECKS)

    each(operations, check)


def test_nobody_gets_nothing(operations):
    public = ("/healthz", "/readyz", "/metrics", "/v1/whoami", "/v1/repos")

    def check(case):
        answer = case.call(allow_redirects=False)
        case.validate_response(answer, checks=CHECKS)
        assert case.operation.path in public or answer.status_code >= 400

    each(operations, check)
