"""Every page in Chromium: works, breaks no policy, can be read by everybody; a picture of each to look at.

Run by script/test-web; a condition that does not come within WAIT_MS fails with what was waited for.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Browser, Page, Playwright, expect, sync_playwright

from tests.browser import tokens
from tests.browser.cluster import Dev, dev_cluster

WAIT_MS: Final = 60_000
ARGUMENTS: Final = [
    "--no-sandbox", "--headless", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
LOOKS: Final = {
    "desktop": {"viewport": {"width": 1280, "height": 860}},
    "dark": {"viewport": {"width": 1280, "height": 860}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True},
}
OFFICE: Final = "#/chart?s=office%0Atemperature"


class Tour:
    def __init__(self, browser: Browser, dev: Dev, pictures: Path, axe: Path | None) -> None:
        self.browser, self.dev, self.pictures, self.axe = browser, dev, pictures, axe
        self.troubles: list[str] = []

    @contextmanager
    def page(self, url: str, look: str = "desktop", *, troubles_allowed: bool = False) -> Iterator[Page]:
        context = self.browser.new_context(**LOOKS[look])  # type: ignore[arg-type]
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        expect.set_options(timeout=WAIT_MS)
        if not troubles_allowed:
            page.on("pageerror", lambda error: self.troubles.append(f"{url} {look}: {error}"))
            page.on("console", lambda message: self._console(f"{url} {look}", message))
        page.goto(url)
        yield page
        context.close()

    def _console(self, where: str, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.troubles.append(f"{where}: {message.text}")

    def shoot(self, page: Page, name: str, *, full: bool = False) -> None:
        page.screenshot(path=self.pictures / f"{name}.png", full_page=full)

    def check_accessibility(self, page: Page, name: str) -> None:
        """axe-core's rules of WCAG 2.1 A and AA, contrast included."""
        if self.axe is None:
            return
        page.evaluate(self.axe.read_text())
        found = page.evaluate("axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']})")
        for violation in found["violations"]:
            targets = [node["target"] for node in violation["nodes"]][:4]
            self.troubles.append(f"{name}: {violation['id']}: {violation['help']} {targets}")

    # pages -----------------------------------------------------------------------------------------------

    def cluster(self, look: str) -> None:
        with self.page(f"{self.dev.web(1)}/#/cluster", look) as page:
            expect(page.locator("li.node")).to_have_count(3)
            expect(page.locator("li.node .pill.lead")).to_have_count(1)
            expect(page.locator("li.node .pill.good")).to_have_count(2)
            expect(page.locator(".alarms")).to_have_text("No alarms")
            page.wait_for_timeout(6_000)
            self.shoot(page, f"cluster-{look}", full=look == "phone")
            self.check_accessibility(page, f"cluster {look}")

    def sensors(self, look: str) -> None:
        with self.page(f"{self.dev.web(2)}/#/sensors", look) as page:
            expect(page.locator("tbody tr").first).to_be_visible()
            self.shoot(page, f"sensors-{look}")
            self.check_accessibility(page, f"sensors {look}")
            page.get_by_role("searchbox").fill("road sp")
            page.get_by_role("searchbox").fill("6005 sp")
            expect(page.locator("tbody tr")).to_have_count(1)
            expect(page.locator("[role=status]", has_text="1 to 1 of 1 series")).to_be_visible()
            page.get_by_role("link", name="road-6005").press("Enter")
            expect(page.locator(".chips li")).to_have_text("road-6005 speed×")

    def chart(self, look: str) -> None:
        with self.page(f"{self.dev.web(3)}/{OFFICE}", look) as page:
            figures = page.locator("tbody tr td")
            expect(figures.first).to_have_text("office temperature")
            expect(page.locator(".u-over")).to_be_visible()
            self.shoot(page, f"chart-{look}")
            self.check_accessibility(page, f"chart {look}")
            before = page.locator(".plot").get_attribute("aria-label")
            page.locator(".plot").focus()
            page.keyboard.press("+")
            expect(page.locator(".plot")).not_to_have_attribute("aria-label", before or "")
            if look == "desktop":
                self.zoom_by_mouse(page)

    def zoom_by_mouse(self, page: Page) -> None:
        box = page.locator(".u-over").bounding_box()
        assert box is not None
        before = page.locator(".plot").get_attribute("aria-label") or ""
        page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 50)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 60, steps=5)
        page.mouse.up()
        expect(page.locator(".plot")).not_to_have_attribute("aria-label", before)
        page.get_by_role("button", name="All").click()
        expect(page.locator("p[role=status]")).to_contain_text("2013")

    def nothing_there(self, look: str) -> None:
        """A series and a page that do not exist are said not to."""
        with self.page(f"{self.dev.web(3)}/#/chart?s=nosuch%0Ax", look) as page:
            expect(page.locator("p[role=status]")).to_contain_text("There is no series nosuch x.")
            expect(page.locator("canvas")).to_have_count(0)
            self.check_accessibility(page, f"chart of nothing {look}")
        with self.page(f"{self.dev.web(3)}/#/nonsense", look) as page:
            expect(page.get_by_role("heading", name="No such page")).to_be_visible()

    def live_chart(self) -> None:
        with self.page(f"{self.dev.web(1)}/#/chart?s=pi-1%0Amemory_used_percent", "desktop") as page:
            page.get_by_role("button", name="15 min").click()
            expect(page.locator("tbody tr td").nth(5)).not_to_have_text("–")
            count = page.locator("tbody tr td").nth(5)
            before = count.text_content() or ""
            expect(count).not_to_have_text(before)
            self.shoot(page, "chart-live")

    def raft(self, look: str) -> None:
        with self.page(f"{self.dev.web(1)}/#/raft", look) as page:
            expect(page.locator(".stage .lead")).to_have_count(1)
            expect(page.locator(".cell.committed").first).to_be_visible()
            page.wait_for_timeout(3_000)
            self.shoot(page, f"raft-{look}", full=look == "phone")
            self.check_accessibility(page, f"raft {look}")

    # faults ----------------------------------------------------------------------------------------------

    def election(self) -> None:
        """The leader is killed while somebody watches on another node."""
        leader = self.dev.leader()
        watcher = next(number for number in (1, 2, 3) if number != leader)
        with self.page(f"{self.dev.web(watcher)}/#/raft") as page:
            expect(page.locator(".stage .lead")).to_have_count(1)
            page.wait_for_timeout(3_000)
            term = int(
                re.findall(r"term (\d+)", page.locator(".stage svg").get_attribute("aria-label") or "")[0]
            )
            newer = re.compile(
                rf"for its vote in term ({'|'.join(str(term + more) for more in range(1, 9))})\."
            )
            os.kill(self.dev.pid(f"node-{leader}"), signal.SIGKILL)
            story = page.locator(".story li")
            expect(story.filter(has_text=newer).first).to_be_visible()
            page.wait_for_timeout(300)
            self.shoot(page, "raft-election")
            expect(page.locator(".caption")).to_contain_text("has a majority and leads term")
            steps = page.locator(".steps li")
            expect(steps.nth(2)).to_contain_text(
                re.compile(r"stands in term \d+: [23] of 3 votes; 2 are needed")
            )
            expect(steps.nth(3)).to_contain_text("Writes go on")
            self.shoot(page, "raft-elected")
            self.check_accessibility(page, "raft after an election")
            expect(story.filter(has_text="has a majority and leads term").first).to_be_visible()
            page.get_by_role("button", name="Step back to the event before").click()
            expect(page.get_by_role("button", name="Play")).to_be_visible()
            story.filter(has_text="gives its vote").first.get_by_role("button").click()
            expect(page.locator(".explain")).to_contain_text("one vote in a term")
            self.shoot(page, "raft-stepped-back")
            page.get_by_role("button", name="Live").click()
            expect(page.locator(".player .when")).to_have_text("now")

    def node_down(self) -> None:
        """A follower hangs: it is stopped, so that nothing starts it again."""
        leader = self.dev.leader()
        hanging, watcher = (number for number in (1, 2, 3) if number != leader)
        pid = self.dev.pid(f"node-{hanging}")
        with self.page(f"{self.dev.web(watcher)}/#/cluster") as page:
            expect(page.locator("li.node .pill.lead")).to_have_count(1)
            page.wait_for_timeout(5_000)
            os.kill(pid, signal.SIGSTOP)
            try:
                expect(page.locator("li.node.away h3")).to_contain_text(f"node-{hanging}")
                expect(page.locator(".alarms")).to_contain_text(f"node-{hanging} is not heard")
                page.wait_for_timeout(6_000)
                self.shoot(page, "cluster-node-down")
                self.check_accessibility(page, "cluster with a node down")
                page.goto(f"{self.dev.web(watcher)}/#/raft")
                expect(page.locator(".stage .away")).to_have_count(1)
                page.wait_for_timeout(1_000)
                self.shoot(page, "raft-node-down")
            finally:
                os.kill(pid, signal.SIGCONT)
            page.goto(f"{self.dev.web(watcher)}/#/cluster")
            expect(page.locator("li.node.away")).to_have_count(0)

    def node_of_the_page_down(self) -> None:
        """The page says that its node is gone, and is there again when the node is."""
        leader = self.dev.leader()
        with self.page(f"{self.dev.web(leader)}/#/cluster", troubles_allowed=True) as page:
            expect(page.locator("#link")).to_have_text(f"from node-{leader}")
            os.kill(self.dev.pid(f"node-{leader}"), signal.SIGKILL)
            expect(page.locator("#link")).to_contain_text("connection lost")
            expect(page.locator("#link")).to_have_text(f"from node-{leader}")
            expect(page.locator("li.node.away")).to_have_count(0)


def main(build: Path) -> int:
    pictures = build / "screenshots"
    pictures.mkdir(parents=True, exist_ok=True)
    axe = build / "axe.min.js"
    wanted = sys.argv[2:] or ["tokens", "pages", "live", "election", "down", "lost"]
    troubles = tour_with_tokens(build, pictures) if "tokens" in wanted else []
    if wanted != ["tokens"]:
        troubles += tour_without(build, pictures, axe, wanted)
    for trouble in troubles:
        print(f"TROUBLE {trouble}")
    print(f"{len(troubles)} troubles; pictures in {pictures}")
    return 1 if troubles else 0


def tour_with_tokens(build: Path, pictures: Path) -> list[str]:
    with sync_playwright() as playwright:
        browser = launch(playwright)
        try:
            return tokens.tour(browser, build, pictures)
        finally:
            browser.close()


def launch(playwright: Playwright) -> Browser:
    return playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)


def tour_without(build: Path, pictures: Path, axe: Path, wanted: list[str]) -> list[str]:
    with dev_cluster(build / "cluster") as dev, sync_playwright() as playwright:
        browser = launch(playwright)
        tour = Tour(browser, dev, pictures, axe if axe.exists() else None)
        if "pages" in wanted:
            for look in LOOKS:
                for visit in (tour.cluster, tour.sensors, tour.chart, tour.nothing_there, tour.raft):
                    visit(look)
                    print(f"ok {visit.__name__} {look}", flush=True)
        for name, visit_once in {
            "live": tour.live_chart, "election": tour.election, "down": tour.node_down,
            "lost": tour.node_of_the_page_down,
        }.items():  # fmt: skip
            if name in wanted:
                visit_once()
                print(f"ok {name}", flush=True)
        browser.close()
        return tour.troubles


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
