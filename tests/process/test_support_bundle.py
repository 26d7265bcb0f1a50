"""`raftberry doctor --bundle` of a secured node whose journal says all of its secrets: none is in the bundle."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.process.nodes import ROOT
from tests.process.secured import SecuredCluster, token_of

pytestmark = pytest.mark.process

JOURNAL = "2026-11-27T00:00:00+0000 pi-1 raftberry[93]: "


def test_no_secret_of_the_node_is_in_a_support_bundle(tmp_path: Path) -> None:
    with SecuredCluster(tmp_path / "cluster", size=1) as cluster:
        (node,) = cluster.nodes
        node.start()
        node.wait_serving()
        invite = node.invite()
        token = token_of(node, "greenhouse", "--write", "*")
        keys = [path.read_text() for path in sorted((node.data / "security").glob("*.pem"))]
        assert sum("PRIVATE KEY" in text for text in keys) == 2, "the CA's and the node's"
        said = [
            f"join pi-1 {invite}",
            f"authorization: Bearer {token}",
            f"token={token}",
            *"\n".join(keys).splitlines(),
        ]
        # A journal that begins in the middle of a key as well.
        said = [*keys[0].splitlines()[1:], *said, "the last line"]
        journal = "\n".join(JOURNAL + line for line in said)
        parts = bundle_of(tmp_path, node.socket, node.data, journal, token)
    names = {name.removeprefix("raftberry-support/") for name in parts}
    of_the_node = {"configuration.toml", "log.txt", "status.json", "members.json"}
    assert names == {"findings.json", "machine.txt", "mounts.txt", *of_the_node}
    assert "the last line" in parts["raftberry-support/log.txt"]
    assert f"data = '{node.data}'" in parts["raftberry-support/configuration.toml"]
    everything = "\n".join(parts.values())
    assert "[removed]" in everything
    secret_lines = [line for text in keys for line in text.splitlines() if len(line) == 64]
    assert len(secret_lines) > 4
    for secret in (token, token[5:], invite, invite[5:], *secret_lines, "PRIVATE KEY"):
        assert secret not in everything, f"{secret[:12]}... is in the bundle"


def bundle_of(folder: Path, socket: str, data: Path, journal: str, token: str) -> dict[str, str]:
    """Its files by name. The journalctl that the command finds prints this journal."""
    (folder / "journal").write_text(journal)
    tool = folder / "bin" / "journalctl"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\nexec cat '{folder}/journal'\n")
    tool.chmod(0o755)
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("RAFTBERRY_")},
        "PATH": f"{tool.parent}:{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'generated'}",
        "RAFTBERRY_TOKEN": token,
    }
    words = ("doctor", "--data", str(data), "--bundle", "support.tar.gz", "--endpoint", socket)
    done = subprocess.run(
        [sys.executable, "-m", "appliance", *words],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    # The findings are this machine's; a traceback would be ours.
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr
    with tarfile.open(folder / "support.tar.gz") as archive:
        files = {entry.name: archive.extractfile(entry) for entry in archive.getmembers()}
        return {name: file.read().decode() for name, file in files.items() if file is not None}
