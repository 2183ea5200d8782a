"""The page of a real hub in a real browser: signing in, looking around, tokens, signing out."""

import httpx
import pytest

from limosa.demo import models
from limosa.exchange.hub_server import HubServer
from limosa.exchange.install import pull
from limosa.exchange.publish import Description, push
from limosa.hub.client import HubClient
from limosa.hub.reference import parse_reference
from limosa.hub.server.context import COOKIE
from limosa.hub.server.settings import HubSettings
from limosa.hub.settings import Places


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A hub with figure 3's history; its address and token."""
    folder = tmp_path_factory.mktemp("hub")
    sender, receiver = Places(folder / "s", folder / "s"), Places(folder / "r", folder / "r")
    with HubServer(HubSettings(folder / "hub")) as server:
        with HubClient(server.url, server.admin_token) as client:
            v1, v2, v3 = (parse_reference(f"team/digits:v{n}") for n in (1, 2, 3))
            one, two, three = models()
            push(client, one, v1, places=sender)
            push(client, two, v2, places=sender)
            out = folder / "model.safetensors"
            token = client.post("/v1/devices", {"name": "cam", "scopes": ["read:team/*"]})["token"]
            with HubClient(server.url, token) as device:
                pull(device, v1, out, places=receiver)
                description = Description("on 500 more digits", {"accuracy": 0.98}, ["v2"])
                push(client, three, v3, places=sender, description=description)
                pull(device, v3, out, places=receiver)
        yield server.url, server.admin_token


def sign_in(page, url: str, token: str) -> None:
    page.goto(url)
    page.fill("input[name=token]", token)
    page.click("main button")
    page.wait_for_load_state()


def test_who_is_not_signed_in_is_asked_to_and_comes_back(hub, page):
    url, token = hub
    page.goto(f"{url}/r/team/digits/v3")
    assert page.url.startswith(f"{url}/login")
    page.fill("input[name=token]", "limosa_wrong")
    page.click("main button")
    assert "does not know this token" in page.inner_text("main")
    page.fill("input[name=token]", token)
    page.click("main button")
    page.wait_for_url(f"{url}/r/team/digits/v3")


def test_the_graph_shows_the_update_that_the_hub_made(hub, page):
    url, token = hub
    sign_in(page, url, token)
    page.click("text=team/digits")
    page.wait_for_load_state()
    drawing = page.inner_text("main")
    assert "v3" in drawing
    assert page.locator("svg").first.is_visible()
    assert "made by the hub" in drawing
    page.goto(f"{url}/r/team/digits/v3")
    text = page.inner_text("main")
    assert "on 500 more digits" in text
    assert "9.weight" in text
    assert page.locator("svg").count() > 3


def test_devices_and_what_they_hold(hub, page):
    url, token = hub
    sign_in(page, url, token)
    page.goto(f"{url}/devices")
    text = page.inner_text("main")
    assert "cam" in text
    assert "team/digits:v3" in text


def test_a_token_is_made_shown_once_and_revoked(hub, page):
    url, token = hub
    sign_in(page, url, token)
    page.goto(f"{url}/tokens")
    page.fill("main input[name=name]", "<b>ci</b>")
    page.fill("main textarea[name=scopes]", "push:team/*\nread:other/*")
    page.click("text=Make token")
    page.wait_for_load_state()
    text = page.inner_text("main")
    assert "<b>ci</b>" in text
    secret = next(word for word in text.split() if word.startswith("limosa_"))
    with HubClient(url, secret) as client:
        assert client.whoami()["scopes"] == ["push:team/*", "read:other/*"]
    page.goto(f"{url}/tokens")
    assert secret not in page.content()
    page.locator("tr", has_text="<b>ci</b>").locator("summary").click()
    page.locator("tr", has_text="<b>ci</b>").locator("text=Revoke now").click()
    page.wait_for_load_state()
    assert "<b>ci</b>" not in page.inner_text("main")
    assert httpx.get(f"{url}/v1/whoami", headers=bearer(secret)).status_code == 401


def test_a_form_that_makes_no_sense_says_so(hub, page):
    url, token = hub
    sign_in(page, url, token)
    page.goto(f"{url}/tokens")
    page.fill("main input[name=name]", "x")
    page.fill("main textarea[name=scopes]", "everything")
    page.click("text=Make token")
    page.wait_for_load_state()
    assert "no scope" in page.inner_text("[role=alert]")


def test_signing_out_ends_it(hub, page):
    url, token = hub
    sign_in(page, url, token)
    page.click("text=Sign out")
    page.wait_for_load_state()
    page.goto(f"{url}/tokens")
    assert page.url.startswith(f"{url}/login")


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_forms_from_elsewhere_do_nothing(hub):
    url, token = hub
    with httpx.Client(base_url=url, cookies={COOKIE: token}) as client:
        before = client.get("/v1/tokens", headers=bearer(token)).json()["tokens"]
        form = {"name": "evil", "scopes": "admin:*", "days": ""}
        assert client.post("/tokens", data=form).status_code == 401
        assert client.post("/tokens", data={**form, "csrf": "00"}).status_code == 401
        assert client.post(f"/tokens/{before[0]['id']}/revoke", data={}).status_code == 401
        assert client.get("/v1/tokens", headers=bearer(token)).json()["tokens"] == before


def test_a_cookie_is_no_token_for_programs(hub):
    url, token = hub
    answer = httpx.get(f"{url}/v1/whoami", cookies={COOKIE: token})
    assert answer.json()["kind"] == "anonymous"


def test_the_cookie_is_kept_from_scripts_and_other_sites(hub):
    url, token = hub
    answer = httpx.post(f"{url}/login", data={"token": token, "next": "//elsewhere.example"})
    assert answer.status_code == 303
    assert answer.headers["location"] == "/"
    field = answer.headers["set-cookie"].lower()
    assert "httponly" in field
    assert "samesite=strict" in field


def test_what_a_token_may_not_read_is_not_there(hub):
    url, token = hub
    made = httpx.post(
        f"{url}/v1/tokens", headers=bearer(token), json={"name": "o", "scopes": ["read:other/*"]}
    ).json()
    with httpx.Client(base_url=url, cookies={COOKIE: made["token"]}) as client:
        page = {"accept": "text/html"}
        hidden = client.get("/r/team/digits", headers=page)
        absent = client.get("/r/team/nothing", headers=page)
        assert hidden.status_code == absent.status_code == 404
        assert hidden.text.replace("digits", "nothing") == absent.text
        assert client.get("/tokens", headers=page).status_code == 403
        assert "team/digits" not in client.get("/", headers=page).text


def test_pages_bring_nothing_from_elsewhere(hub):
    url, token = hub
    with httpx.Client(base_url=url, cookies={COOKIE: token}) as client:
        for path in ("/", "/saved", "/devices", "/tokens", "/r/team/digits", "/r/team/digits/v3"):
            answer = client.get(path)
            assert answer.status_code == 200
            assert "default-src 'self'" in answer.headers["content-security-policy"]
            assert "//" not in answer.text.replace("http://www.w3.org", "")
