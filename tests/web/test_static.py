"""The dashboard's files: all there, nothing from elsewhere, nothing that the policy would stop."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from appliance.web.static_files import load_static
from tests.web.fakes import client

STATIC = Path(__file__).resolve().parents[2] / "appliance" / "web" / "static"
OURS = [path for path in sorted(STATIC.iterdir()) if path.suffix in {".js", ".css", ".html"}]
SIZE_MAX = 400_000


def read(path: Path) -> str:
    return path.read_text("utf-8")


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_a_page_names_no_other_host(path: Path) -> None:
    text = read(path).replace("http://www.w3.org/2000/svg", "")
    assert not re.findall(r"(?:https?:)?//[a-z0-9-]+\.[a-z]", text)


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_nothing_is_made_of_markup_in_strings(path: Path) -> None:
    assert not re.findall(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", read(path)
    )


def test_the_page_has_no_inline_script_or_style() -> None:
    text = read(STATIC / "index.html")
    assert not re.findall(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", text)


def test_every_module_and_file_that_is_named_is_there() -> None:
    files = load_static()
    for path in OURS:
        named = re.findall(r'(?:from|import) "\./([^"]+)"', read(path))
        if path.suffix == ".html":
            named += re.findall(r'(?:src|href)="([^"#][^"]*)"', read(path))
        assert set(named) <= files.keys(), path.name


def test_the_chart_library_comes_with_its_licence() -> None:
    assert "MIT License" in gzip.decompress(load_static()["vendor/uPlot-LICENSE.txt"].packed).decode()


def test_every_decision_of_consensus_is_explained() -> None:
    """What else a node records has the page's default words until somebody finds better ones."""
    sources = [path.read_text("utf-8") for path in (STATIC.parents[1] / "consensus").glob("*.py")]
    recorded = {kind for text in sources for kind in re.findall(r'\brecord\(\s*"([a-z_]+)"', text)}
    recorded |= {
        "became_leader",
        "became_candidate",
        "became_follower",
        "granted_pre_vote",
        "refused_pre_vote",
    }
    explained = set(re.findall(r"^  ([a-z_]+): \[", read(STATIC / "explain.js"), re.MULTILINE))
    assert {"granted_vote", "configured"} <= recorded
    assert recorded <= explained, "a new kind of event: say what it means in static/explain.js, in KINDS"


def test_all_of_it_is_small() -> None:
    assert sum(path.stat().st_size for path in STATIC.rglob("*") if path.is_file()) < SIZE_MAX


async def test_a_file_that_is_known_already_is_not_sent_again() -> None:
    async with client() as http:
        first = await http.get("/app.js")
        assert first.headers["content-encoding"] == "gzip"
        again = await http.get("/app.js", headers={"if-none-match": first.headers["etag"]})
        plain = await http.get("/app.js", headers={"accept-encoding": "identity"})
    assert (again.status_code, again.content) == (304, b"")
    assert plain.text == first.text == read(STATIC / "app.js")
