"""version: what is installed."""

from __future__ import annotations

import platform
from importlib import metadata

import click


def installed_version() -> str:
    """Version of the package; `unknown` in a source tree that was never installed."""
    try:
        return metadata.version("raftberry")
    except metadata.PackageNotFoundError:
        return "unknown"


@click.command()
def version() -> None:
    """Show the version.

    \b
    Example: raftberry version
    """
    click.echo(f"raftberry {installed_version()} (Python {platform.python_version()}, {platform.machine()})")
