"""What the pages for users hold: their links, headings, code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "packaging").rglob("*.md")]
)

_FENCE: Final = re.compile(r"^(```+)(\w*)[^\n]*\n(.*?)^\1\s*$", re.MULTILINE | re.DOTALL)
_INDENTED: Final = re.compile(r"(?:(?<=\n\n)|\A)((?:    .*\n|\n(?=    ))+)")
_SPAN: Final = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_LINK: Final = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)\)")
_HEADING: Final = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Code:
    """kind: `console`, `span`, another language of a fence, or "" for what is indented."""

    kind: str
    text: str


def code_of(page: str) -> Iterator[Code]:
    for fence in _FENCE.finditer(page):
        yield Code(fence[2], fence[3])
    prose = _FENCE.sub("", page)
    for block in _INDENTED.finditer(prose):
        yield Code("", re.sub(r"^    ", "", block[1], flags=re.MULTILINE))
    for span in _SPAN.finditer(_INDENTED.sub("\n", prose)):
        yield Code("span", span[1])


def links_of(page: str) -> Iterator[str]:
    """Targets within the repository."""
    prose = _SPAN.sub("", _FENCE.sub("", page))
    for target in _LINK.findall(prose):
        if not re.match(r"[a-z]+:", target):
            yield target


def anchors_of(page: str) -> set[str]:
    """As the renderers of repositories make them of headings."""
    found: set[str] = set()
    for heading in _HEADING.findall(_FENCE.sub("", page)):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        anchor = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        number, base = 0, anchor
        while anchor in found:
            number += 1
            anchor = f"{base}-{number}"
        found.add(anchor)
    return found
