"""The last step of docs/getting-started.md: from the address to a chart with a point in it, in Chromium.

python -m tests.system.first_chart URL TOKEN PICTURE
"""

from __future__ import annotations

import sys

from playwright.sync_api import expect, sync_playwright

WAIT_MS = 60_000


def main(url: str, token: str, picture: str) -> None:
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--headless", "--disable-gpu"]
        )
        # "Accept it", as the page says.
        page = browser.new_context(ignore_https_errors=True).new_page()
        page.goto(url)
        page.get_by_label("Token").fill(token)
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("link", name="Sensors").click()
        page.get_by_role("link", name="greenhouse").first.click()
        expect(page.locator(".u-over")).to_be_visible()
        expect(page.locator("tbody tr td").first).to_contain_text("greenhouse")
        page.screenshot(path=picture)
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:4])
