"""Fake clusters and a way to run a command line in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from appliance.cli.main import run
from tests.cli.fake_server import FakeNode, Memory


@dataclass(frozen=True)
class Result:
    """What a command did."""

    status: int
    out: str
    err: str


Raftberry = Callable[..., Result]


@pytest.fixture
def nodes() -> Iterator[list[FakeNode]]:
    """Two nodes of one cluster."""
    memory = Memory()
    cluster = [FakeNode("node-1", memory), FakeNode("node-2", memory)]
    yield cluster
    for node in cluster:
        node.stop()


@pytest.fixture
def raftberry(
    nodes: list[FakeNode], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Raftberry:
    """Run a command against both nodes, node-1 first."""
    monkeypatch.setenv("RAFTBERRY_ENDPOINTS", ",".join(node.address for node in nodes))

    def invoke(*arguments: str) -> Result:
        capsys.readouterr()
        status = run(arguments)
        captured = capsys.readouterr()
        return Result(status, captured.out, captured.err)

    return invoke
