"""Every link from one page of ours to another file leads there, and every link to a heading finds it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, anchors_of, links_of


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_within_the_repository_leads_somewhere(page: Path) -> None:
    broken = [target for target in links_of(page.read_text("utf-8")) if not resolves(page, target)]
    assert broken == []


def resolves(page: Path, target: str) -> bool:
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    if not file.exists() or not file.is_relative_to(ROOT):
        return False
    return not anchor or (file.suffix == ".md" and anchor in anchors_of(file.read_text("utf-8")))


def test_a_link_to_what_is_not_there_is_noticed() -> None:
    page = ROOT / "README.md"
    assert resolves(page, "docs/operating.md#alarms")
    assert not resolves(page, "docs/operating.md#no-such-heading")
    assert not resolves(page, "docs/no-such-page.md")
    assert list(links_of("[a](b.md#c) `[x](y.md)` [out](https://example.org/)")) == ["b.md#c"]


def test_every_page_is_reached_from_the_readme() -> None:
    reached, new = set[Path](), {ROOT / "README.md"}
    while new:
        reached |= new
        targets = {
            (page.parent / target.partition("#")[0]).resolve()
            for page in new
            for target in links_of(page.read_text("utf-8"))
        }
        new = {path for path in targets if path.suffix == ".md" and path.is_file()} - reached
    assert {page for page in PAGES if page.is_relative_to(ROOT / "docs")} - reached == set()
