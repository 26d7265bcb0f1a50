"""Prints the licences of everything inside the frozen executable: libraries from PyPI, libraries from Debian.

Invariant: a library without a licence text ends the build; nobody ships what nobody may ship.
Called by script/build: licenses.py SITE ROOT.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

BUILD_ONLY = frozenset({"altgraph", "packaging", "pyinstaller-hooks-contrib", "setuptools", "wheel"})
"""They make the executable and are not in it. PyInstaller itself is: its bootloader."""

NAMES = ("license", "licence", "copying", "notice")


def main(site: Path, root: Path) -> None:
    for title, text in (*_from_pypi(site), *_vendored(site), *_from_debian(root)):
        print(f"{'=' * 78}\n{title}\n{'=' * 78}\n\n{text.strip()}\n")


def _from_pypi(site: Path) -> Iterator[tuple[str, str]]:
    distributions = sorted(
        metadata.distributions(path=[str(site)]), key=lambda one: one.metadata["Name"].lower()
    )
    for distribution in distributions:
        name = distribution.metadata["Name"]
        if name.lower() in BUILD_ONLY:
            continue
        files = [file for file in distribution.files or [] if file.name.lower().startswith(NAMES)]
        texts = [
            Path(str(file.locate())).read_text("utf-8", "replace") for file in files if ".py" not in file.name
        ]
        declared = (
            distribution.metadata.get("License-Expression") or distribution.metadata.get("License") or ""
        )
        if not texts and not declared:
            raise SystemExit(f"licenses: {name} has neither a licence file nor a declared licence")
        yield (
            f"{name} {distribution.version}  {declared.splitlines()[0] if declared else ''}",
            "\n\n".join(texts),
        )


def _vendored(site: Path) -> Iterator[tuple[str, str]]:
    """What the dashboard brings along: NAME-LICENSE.txt beside NAME."""
    for file in sorted((site / "appliance/web/static/vendor").glob("*-LICENSE.txt")):
        yield f"{file.name.removesuffix('-LICENSE.txt')} (in the dashboard)", file.read_text("utf-8")


def _from_debian(root: Path) -> Iterator[tuple[str, str]]:
    """All libraries of the root the executable was made in: more than what is inside, never less."""
    for file in sorted((root / "usr/share/doc").glob("*/copyright")):
        package = file.parent.name
        if package.startswith(("lib", "python3", "zlib")) and file.exists():
            yield f"Debian: {package}", file.read_text("utf-8", "replace")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
