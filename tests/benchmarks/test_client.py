"""What the benchmark says to its load client and takes from it, and from the kernel's counters."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import client, machine
from benchmarks.client import ClientFailed, Load
from benchmarks.figures import Figures
from benchmarks.run import main
from benchmarks.writing import BULK, UNARY


def fake_program(folder: Path, lines: str) -> Path:
    """Stands for the client: its lines are Python."""
    path = folder / "client"
    path.write_text(f"#!{sys.executable}\nimport json, sys\n{lines}\n")
    path.chmod(0o755)
    return path


def test_the_client_waits_at_each_event_until_it_is_told_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (
        "print('ready', flush=True); first = sys.stdin.readline()\n"
        "print('written', flush=True); second = sys.stdin.readline()\n"
        "print(json.dumps({'readings': len(first + second), 'arguments': len(sys.argv)}))"
    )
    monkeypatch.setattr(client, "PROGRAM", fake_program(tmp_path, lines))
    load = Load("etcd", "write", ["127.0.0.1:1", "127.0.0.1:2"], "--clients", 64, "--pause")
    load.wait_for("ready")
    load.go_on()
    load.wait_for("written")
    load.go_on()
    assert load.result() == {"readings": 2, "arguments": 13}


def test_a_client_that_fails_says_what_and_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PROGRAM", fake_program(tmp_path, "sys.exit('the node refused')"))
    with pytest.raises(ClientFailed, match=r"etcd: write --clients 1 failed: .*the node refused"):
        Load("etcd", "write", [], "--clients", 1).wait_for("ready")
    with pytest.raises(ClientFailed, match="the node refused"):
        Load("etcd", "write", []).result()


def test_options_of_a_load() -> None:
    assert UNARY[0].options(5)[:4] == ["--clients", 1, "--in-flight", 1]
    many = BULK[-1].options(0)
    assert many[many.index("--series-per-message") + 1] == 1000
    assert "--streams" in many


def test_usage_counts_a_process_and_its_children() -> None:
    command = "import subprocess, sys; subprocess.run(['sh', '-c', 'echo up; read line'])"
    process = subprocess.Popen(
        [sys.executable, "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    both, own = machine.usage(process.pid), Path(f"/proc/{process.pid}/status").read_text()
    alone = int(next(line.split()[1] for line in own.splitlines() if line.startswith("RssAnon"))) * 1024
    process.communicate("\n")
    assert both.rss_anon_bytes > alone > 0


def test_usage_of_a_process_that_has_ended_is_an_error() -> None:
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(AssertionError, match="has ended"):
        machine.usage(process.pid)
    process.wait()


def test_a_device_without_counters_has_no_bytes() -> None:
    assert machine.device_bytes_written(Path("/proc")) is None


def test_an_unknown_part_is_refused_with_those_there_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["script/benchmark", "--only", "unary,speed"])
    with pytest.raises(SystemExit):
        main()
    assert "speed is none of floor, unary, stream" in capsys.readouterr().err


def test_what_is_not_offered_is_kept_as_a_failure() -> None:
    figures = Figures()
    figures.fail("range", "a range", "nats", "not offered")
    assert Figures.from_json(figures.as_json()).failures == {"range": {"nats": "not offered"}}
