"""Login by token on a secured cluster, in Chromium, by keyboard alone: wrong, scoped, read-only, revoked, ended.

What breaks the Content-Security-Policy is a trouble like any other.

Run by script/test-web.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, Page, expect

from raftberry.v1 import reading_pb2, reading_pb2_grpc
from tests.process.secured import SecuredCluster, SecuredNode, token_of

WAIT_MS: Final = 60_000
NASTY: Final = "<img src=x onerror=alert(1)>"
"""Names are whatever sensors send."""

EXPECTED: Final = re.compile(r"the server responded with a status of (401|429)")
"""Chromium reports each refused request itself; those are what is tried here."""

_WATCH_POLICY: Final = """
document.addEventListener("securitypolicyviolation", (event) => {
  console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`);
});
"""


class Desk:
    """A secured cluster, its tokens, and a browser that has none of them yet."""

    def __init__(self, browser: Browser, node: SecuredNode, pictures: Path) -> None:
        self.browser, self.node, self.pictures = browser, node, pictures
        self.troubles: list[str] = []

    @contextmanager
    def page(self, look: str = "login") -> Iterator[Page]:
        """A fresh browser on the first page. On loopback it is HTTP; script/test-walk goes by HTTPS."""
        context = self.browser.new_context(viewport={"width": 1280, "height": 860})
        context.add_init_script(_WATCH_POLICY)
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.on("pageerror", lambda error: self.troubles.append(f"{look}: {error}"))
        page.on("console", lambda message: self._console(look, message.type, message.text))
        page.goto(f"http://{self.node.web_address}/")
        yield page
        context.close()

    def _console(self, look: str, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not EXPECTED.search(text):
            self.troubles.append(f"{look}: {text}")

    def shoot(self, page: Page, name: str) -> None:
        page.screenshot(path=self.pictures / f"{name}.png")

    def try_token(self, page: Page, token: str) -> None:
        """Types it where the keyboard is after tabbing there, and sends it by Enter."""
        tab_to(page, "Token")
        page.keyboard.press("Control+A")
        page.keyboard.type(token)
        page.keyboard.press("Enter")

    def log_in(self, page: Page, token: str) -> None:
        self.try_token(page, token)
        expect(page.locator("li.node")).to_have_count(3)


def tab_to(page: Page, name: str) -> None:
    """Presses Tab until what has this name has the keyboard, as somebody without a mouse does."""
    for _ in range(40):
        found = page.evaluate(
            "() => { const e = document.activeElement;"
            " return e.labels?.[0]?.textContent ?? e.getAttribute('aria-label') ?? e.textContent; }"
        )
        if found.strip() == name:
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"no way to {name!r} by Tab")


def refused(desk: Desk) -> None:
    """Each with its reason, and the page still asks."""
    cases = {
        "no-token": ("rbt1_nonsense", "not known here"),
        "another-cluster": (f"rbt1_{secrets.token_urlsafe(32)}", "not known here"),
        "write-only": (token_of(desk.node, "pump", "--write", "*"), "token pump may not read every series"),
        "scoped": (
            token_of(desk.node, "greenhouse", "--read", "greenhouse/*", "--write", "greenhouse/*"),
            "token greenhouse may not read every series",
        ),
        "operator": (token_of(desk.node, "anna", "--operator"), "token anna may not read every series"),
    }
    with desk.page() as page:
        expect(page.get_by_label("Token")).to_be_visible()
        desk.shoot(page, "login")
        for name, (token, why) in cases.items():
            desk.try_token(page, token)
            expect(page.get_by_role("alert")).to_contain_text(why)
            expect(page.get_by_label("Token")).to_be_visible()
            print(f"  {name}: {page.get_by_role('alert').text_content()}", flush=True)
        desk.shoot(page, "login-refused")
        expect(page.locator("li.node")).to_have_count(0)


def read_only(desk: Desk) -> None:
    """Every page by keyboard; nothing of the token is left where a script or the address bar could show it."""
    token = token_of(desk.node, "display", "--read", "*")
    with desk.page() as page:
        desk.log_in(page, token)
        desk.shoot(page, "cluster-secured")
        tab_to(page, "Sensors")
        page.keyboard.press("Enter")
        row = page.locator("tbody tr", has_text=NASTY)
        expect(row).to_have_count(1)
        desk.shoot(page, "sensors-secured")
        tab_to(page, NASTY)
        page.keyboard.press("Enter")
        expect(page.locator(".plot")).to_be_visible()
        tab_to(page, "Raft, live")
        page.keyboard.press("Enter")
        expect(page.locator(".stage .lead")).to_have_count(1)
        kept = page.evaluate("() => document.cookie + JSON.stringify({...localStorage, ...sessionStorage})")
        assert token not in kept + page.url + page.content()
        assert "raftberry_session" not in kept
        page.reload()
        expect(page.locator(".stage .lead")).to_have_count(1)
        tab_to(page, "Log out")
        page.keyboard.press("Enter")
        expect(page.get_by_label("Token")).to_be_visible()
        page.reload()
        expect(page.get_by_label("Token")).to_be_visible()
        expect(page.locator(".stage")).to_have_count(0)


def revoked(desk: Desk) -> None:
    """While the page is open: it goes back to the login by itself, and shows nothing any more."""
    token = token_of(desk.node, "visitor", "--read", "*")
    with desk.page() as page:
        desk.log_in(page, token)
        done = desk.node.command("token", "revoke", "visitor")
        assert done.returncode == 0, done.stderr
        expect(page.get_by_label("Token")).to_be_visible()
        expect(page.locator("li.node")).to_have_count(0)
        desk.shoot(page, "login-revoked")
        desk.try_token(page, token)
        expect(page.get_by_role("alert")).to_contain_text("it was revoked")


def ended(desk: Desk) -> None:
    """--expires, while the page is open."""
    token = token_of(desk.node, "guest", "--read", "*", "--expires", "20s")
    with desk.page() as page:
        desk.log_in(page, token)
        expect(page.get_by_label("Token")).to_be_visible()
        desk.try_token(page, token)
        expect(page.get_by_role("alert")).to_contain_text("token guest has ended")


def slow_token(desk: Desk) -> None:
    """A small rate is enough for a page that is open, under load: what streams to it is one request."""
    token = token_of(desk.node, "clock", "--read", "*", "--rate", "3/s")
    with desk.page() as page:
        desk.log_in(page, token)
        for value in range(60):
            write(desk.node, "kitchen", float(value))
        page.wait_for_timeout(3_000)
        expect(page.locator("li.node")).to_have_count(3)
        expect(page.locator("#link")).to_contain_text("from n")


def write(node: SecuredNode, sensor: str, value: float) -> None:
    readings = reading_pb2.Readings(sensor=sensor, metric="temperature", value=[value])
    reading_pb2_grpc.ReadingServiceStub(node.channel).Write(
        reading_pb2.WriteRequest(readings=[readings]), timeout=60
    )


def tour(browser: Browser, build: Path, pictures: Path) -> list[str]:
    """All of it; what went wrong."""
    expect.set_options(timeout=WAIT_MS)
    with SecuredCluster(build / "cluster" / f"secured-{os.getpid()}") as cluster:
        cluster.form()
        write(cluster.nodes[0], NASTY, 21.5)
        desk = Desk(browser, cluster.nodes[1], pictures)
        for part in (refused, read_only, revoked, ended, slow_token):
            part(desk)
            print(f"ok {part.__name__}", flush=True)
    return desk.troubles
