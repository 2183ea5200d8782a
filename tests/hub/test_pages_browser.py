"""The pages in a real browser: themes, narrow screens, keyboard, and nothing from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import page_examples as examples
import pytest
from page_server import serve
from playwright.sync_api import Browser, BrowserContext, Page, expect

REPOSITORY = f"/r/{examples.REPOSITORY}"
VERSION = f"{REPOSITORY}/v4"
#: Opens a page of the examples, in a context of its own.
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return examples.pages()


@pytest.fixture(scope="module")
def address(pages: dict[str, str]) -> Iterator[str]:
    with serve(pages) as at:
        yield at


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator[Open]:
    """Opens pages; whatever the browser complains of, or asks others for, fails the test."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def go(path: str, *, width: int = 1280, **more: object) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 800}, **more)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda request: request.url.startswith(address) or complaints.append(request.url),
        )
        page.on(
            "response",
            lambda response: response.ok or complaints.append(f"{response.status} {response.url}"),
        )
        page.goto(address + path)
        return page

    yield go
    for context in contexts:
        context.close()
    assert complaints == []


def background(page: Page) -> float:
    """How bright the page is, of 255."""
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_pages_fit_the_screen(visit: Open, pages: dict[str, str], scheme: str, width: int):
    page = visit("/", width=width, color_scheme=scheme)
    for path in pages:
        page.goto(page.url.split("/", 3)[0] + "//" + page.url.split("/", 3)[2] + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        assert (background(page) > 128) == (scheme == "light")


def test_the_theme_can_be_switched_and_is_remembered(visit: Open):
    page = visit("/", color_scheme="light")
    toggle = page.get_by_role("button", name="Theme")
    expect(toggle).to_have_text("Theme: auto")
    toggle.click()
    expect(toggle).to_have_text("Theme: light")
    toggle.click()
    expect(toggle).to_have_text("Theme: dark")
    assert background(page) < 128
    page.reload()
    assert background(page) < 128
    toggle.click()
    assert background(page) > 128


# Contrast as WCAG 2.2 defines it, of each text against the nearest background behind it.
CONTRAST = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgb = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (c) => {
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = c.map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const c = rgb(getComputedStyle(e).backgroundColor);
      if (c[3] === 255) return c;
    }
    return [255, 255, 255, 255];
  };
  const bad = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || !element.checkVisibility() || /^(title|desc)$/.test(element.tagName)) continue;
    const style = getComputedStyle(element);
    const colour = element.tagName === "text" ? style.fill : style.color;
    const [a, b] = [light(rgb(colour)), light(behind(element))].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < 4.5) bad.push(`${element.tagName} ${element.textContent}: ${contrast}`);
  }
  return bad;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["/", REPOSITORY, VERSION, "/devices", "/tokens", "/login"])
def test_text_can_be_read(visit: Open, scheme: str, path: str):
    page = visit(path, color_scheme=scheme)
    assert page.evaluate(CONTRAST) == []


def focused(page: Page) -> str:
    return page.evaluate(
        "document.activeElement.textContent.trim() || document.activeElement.tagName"
    )


def test_the_keyboard_reaches_everything_in_order(visit: Open):
    page = visit("/")
    seen = []
    for _ in range(11):
        page.keyboard.press("Tab")
        seen.append(focused(page))
    assert seen == [
        "Skip to content", "limosa hub", "Repositories", "Saved", "Devices", "Tokens",
        "Theme: auto", "Sign out", "INPUT", seen[9], "Name",
    ]  # fmt: skip
    assert seen[9].startswith("Name")  # the box that scrolls
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_the_skip_link_skips(visit: Open):
    page = visit("/")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert focused(page) == "INPUT"


def column(page: Page, number: int) -> list[str]:
    return page.locator(f"tbody tr:visible > :nth-child({number})").all_inner_texts()


def test_a_table_is_sorted_by_the_keyboard(visit: Open):
    page = visit("/")
    heading = page.get_by_role("button", name="Versions")
    heading.focus()
    page.keyboard.press("Enter")
    assert column(page, 2) == ["0", "2", "3", "5", "31"]
    header = page.locator("th[aria-sort]")
    assert header.get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Enter")
    assert column(page, 2) == ["31", "5", "3", "2", "0"]
    assert header.get_attribute("aria-sort") == "descending"
    page.get_by_role("button", name="Stored").click()
    assert column(page, 4)[:2] == ["0 B", "793.0 KiB"]


def test_tensors_are_sorted_and_filtered_in_the_page(visit: Open):
    page = visit(VERSION)
    table = page.locator("#tensor-table")
    before = page.url
    page.get_by_role("link", name="Size").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    first = table.locator("tbody tr").first
    expect(first).to_contain_text("backbone.blocks.6.0.conv_pw.weight")
    page.get_by_label("Filter").fill("ANCHORS")
    expect(table.locator("tbody tr:visible")).to_have_count(1)
    expect(page.locator("[data-count=tensor-table]")).to_have_text("1 of 66 tensors")
    page.keyboard.press("Enter")
    page.get_by_label("Filter").fill("")
    expect(table.locator("tbody tr:visible")).to_have_count(66)
    assert page.url == before


def test_without_javascript_links_and_forms_do_the_work(visit: Open):
    page = visit(VERSION, java_script_enabled=False)
    page.get_by_role("link", name="Size").click()
    assert "sort=size" in page.url
    page.get_by_label("Filter").fill("conv")
    page.get_by_role("button", name="Filter").click()
    assert "q=conv" in page.url
    assert page.get_by_role("button", name="Copy").count() == 0


def test_pages_of_many_tensors_are_sorted_by_the_server(visit: Open):
    page = visit(f"{REPOSITORY}/many")
    page.get_by_role("link", name="Deviation").click()
    page.wait_for_url("**?sort=std#tensors")
    expect(page.get_by_role("link", name="Next")).to_be_visible()


def test_the_command_is_copied(visit: Open):
    page = visit(REPOSITORY, permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == "limosa pull vision/detector:v4"


def test_a_node_of_the_graph_leads_to_its_version(visit: Open):
    page = visit(REPOSITORY)
    page.locator("a.node", has_text="v4").focus()
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{VERSION}")


def test_a_narrow_graph_begins_with_what_is_new_and_scrolls(visit: Open):
    page = visit("/r/text/long", width=360)
    expect(page.locator("a.node.tagged")).to_be_in_viewport()
    expect(page.locator("a.node").first).not_to_be_in_viewport()
    page.locator(".framed").focus()
    page.keyboard.press("Home")
    page.locator(".framed").evaluate("box => (box.scrollLeft = 0)")
    expect(page.locator("a.node").first).to_be_in_viewport()


def test_a_token_is_revoked_in_two_steps(visit: Open):
    page = visit("/tokens")
    button = page.get_by_role("button", name="Revoke now")
    expect(button).to_have_count(0)
    page.get_by_label("Revoke training").focus()
    page.keyboard.press("Enter")
    expect(button).to_have_count(1)
    form = page.locator("form", has=button).first
    assert form.get_attribute("action") == "/tokens/2/revoke"


def test_what_a_drawing_shows_is_told(visit: Open):
    page = visit(REPOSITORY)
    chart = page.get_by_role("img", name="Bytes sent and saved by day")
    expect(chart).to_be_visible()
    graph = page.get_by_role("group", name="Versions of vision/detector")
    expect(graph).to_have_accessible_description(re.compile("5 versions.*2 lossy copies"))
