"""The programs of docs/sensors.md as they stand there, with the addresses of nodes on loopback put in.

Each is run against a secured cluster, one node of which is killed after the second reading. Also used by
script/test-sensors for what needs more than the checks install.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from raftberry.v1 import reading_pb2, reading_pb2_grpc
from tests.process.nodes import ROOT
from tests.process.secured import SecuredCluster, SecuredNode, token_of

PAGE: Final = ROOT / "docs" / "sensors.md"
READINGS: Final = 5
"""Each of the programs writes so many, and ends."""


def program(section: str, language: str, number: int = 0) -> str:
    """The number-th block of this language in a section."""
    text = PAGE.read_text("utf-8").split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)[number]


def addressed(text: str, cluster: SecuredCluster) -> str:
    """pi-1.local:7440 and so on are the cluster's nodes."""
    for number, node in enumerate(cluster.nodes, start=1):
        text = text.replace(f"pi-{number}.local:7440", node.client_address)
    return text


def prepare(cluster: SecuredCluster, folder: Path, name: str) -> dict[str, str]:
    """raftberry-ca.pem in the folder; an environment with a token that may write to greenhouse."""
    node = cluster.nodes[-1]
    authority = node.command("token", "ca")
    assert authority.returncode == 0, authority.stderr
    (folder / "raftberry-ca.pem").write_text(authority.stdout)
    token = token_of(node, name, "--write", "greenhouse/*")
    return {
        **os.environ,
        "RAFTBERRY_TOKEN": token,
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": str(ROOT / "generated"),
    }


def run_while_killing(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], victim: SecuredNode
) -> list[str]:
    """Lines of output; the victim is killed when there are two."""
    lines: list[str] = []
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            if len(lines) == 2:
                victim.kill()
    assert process.returncode == 0, lines
    return lines


def stored(node: SecuredNode, sensor: str, metric: str) -> list[float]:
    """Every value of a series, in order; a linearizable read."""
    query = reading_pb2_grpc.ReadingServiceStub(node.channel).Query
    request = reading_pb2.QueryRequest(sensor=sensor, metric=metric)
    answers = query(request, timeout=60)
    return [value for answer in answers for readings in answer.readings for value in readings.value]
