"""docs/prometheus against a real Prometheus: three nodes scraped, one killed, the alert seen firing.

Run by script/test-web. Prints a transcript, which docs/prometheus/README.md shows.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import grpc
import httpx

from raftberry.v1 import reading_pb2, reading_pb2_grpc
from tests.process.nodes import Cluster, free_port

ROOT: Final = Path(__file__).resolve().parents[2]
DOCS: Final = ROOT / "docs" / "prometheus"
WAIT_S: Final = 180.0


class Prometheus:
    """The process, with the documented configuration pointed at our nodes and asked once a second."""

    def __init__(self, folder: Path, targets: list[str]) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        text = (DOCS / "prometheus.yml").read_text().replace("15s", "1s")
        for number, target in enumerate(targets, start=1):
            text = text.replace(f"pi-{number}.local:7442", target)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "prometheus.yml").write_text(text)
        (folder / "raftberry.rules.yml").write_text((DOCS / "raftberry.rules.yml").read_text())
        self._process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address={self.url.removeprefix('http://')}",
                "--log.level=warn",
            ]
        )

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(60)

    def get(self, path: str, **parameters: str) -> Any:
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=30)
        return answer.json()

    def query(self, expression: str) -> list[dict[str, Any]]:
        found = self.get("query", query=expression)
        assert found["status"] == "success", f"{expression}: {found}"
        result: list[dict[str, Any]] = found["data"]["result"]
        return result

    def alerts(self) -> dict[tuple[str, str], str]:
        """(name, instance) to its state."""
        return {
            (alert["labels"]["alertname"], alert["labels"].get("instance", "")): alert["state"]
            for alert in self.get("alerts")["data"]["alerts"]
        }


def wait_for(what: str, probe: Callable[[], object]) -> float:
    """Seconds until the probe was true."""
    begun = time.monotonic()
    while time.monotonic() - begun < WAIT_S:
        try:
            if probe():
                return time.monotonic() - begun
        except (httpx.HTTPError, ValueError):
            # It does not listen yet.
            pass
        time.sleep(0.5)
    raise AssertionError(f"waited {WAIT_S:.0f} s for {what}")


def write(cluster: Cluster) -> None:
    stub = reading_pb2_grpc.ReadingServiceStub(cluster.nodes[0].channel)
    for value in range(20):
        readings = reading_pb2.Readings(sensor="kitchen", metric="temperature", value=[float(value)])
        stub.Write(reading_pb2.WriteRequest(readings=[readings]), timeout=60)
    try:
        stub.Write(reading_pb2.WriteRequest(readings=[reading_pb2.Readings()]), timeout=60)
    except grpc.RpcError:
        # That is the failed call that the dashboard shall show.
        pass


def check_dashboard(prometheus: Prometheus) -> None:
    """Each expression is understood and has values; drops by the guard are the one thing that may not have happened."""
    panels = json.loads((DOCS / "grafana-dashboard.json").read_text())["panels"]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    expressions = [
        each.replace("$job", "raftberry").replace("$__rate_interval", "1m") for each in expressions
    ]
    silent = [each for each in expressions if not prometheus.query(each)]
    print(
        f"dashboard: {len(expressions)} expressions, {len(expressions) - len(silent)} with values; without: {silent}"
    )
    assert all("guard_dropped" in each for each in silent), silent


def main(build: Path) -> None:
    for command in (
        ["promtool", "check", "config", "prometheus.yml"],
        ["promtool", "check", "rules", "raftberry.rules.yml"],
        ["promtool", "test", "rules", "raftberry.rules.test.yml"],
    ):
        print(f"$ {' '.join(command)}", flush=True)
        subprocess.run(command, cwd=DOCS, check=True)
    folder = build / f"prometheus-{time.time_ns()}"
    with Cluster(folder) as cluster:
        cluster.start()
        prometheus = Prometheus(folder / "prometheus", [node.web_address for node in cluster])
        try:
            watch_one_be_lost(cluster, prometheus)
        finally:
            prometheus.stop()


def watch_one_be_lost(cluster: Cluster, prometheus: Prometheus) -> None:
    wait_for("three targets", lambda: len(prometheus.query('up{job="raftberry"} == 1')) == 3)
    write(cluster)
    wait_for("a rate", lambda: prometheus.query("rate(raftberry_readings_applied_total[1m]) > 0"))
    print("three nodes are scraped:")
    for found in prometheus.query('raftberry_role{role="leader"}'):
        print(f"  {found['metric']['instance']} up=1 leader={found['value'][1]}")
    wait_for("a failed call", lambda: prometheus.query('rate(raftberry_requests_total{code!="OK"}[1m])'))
    check_dashboard(prometheus)
    # The clock of a test machine is its own matter.
    ringing = {name for name, _ in prometheus.alerts()} - {"RaftberryClockNotSynchronized"}
    print(f"alerts: {sorted(ringing) or 'none'}")
    assert not ringing
    lost = cluster.followers()[0]
    print(f"kill -9 of {lost.name} ({lost.web_address})")
    lost.kill()
    key = ("RaftberryNodeLost", lost.web_address)
    pending_s = wait_for("the alert to be pending", lambda: prometheus.alerts().get(key))
    print(f"  after {pending_s:4.0f} s: RaftberryNodeLost {lost.web_address} is pending")
    firing_s = pending_s + wait_for("the alert to fire", lambda: prometheus.alerts().get(key) == "firing")
    print(f"  after {firing_s:4.0f} s: RaftberryNodeLost {lost.web_address} is firing")
    (found,) = prometheus.query("sum(raftberry_has_quorum)")
    print(f"  nodes that see a majority: {found['value'][1]}")
    lost.start()
    back_s = wait_for("the alert to end", lambda: key not in prometheus.alerts())
    print(f"started again: the alert is gone after {back_s:.0f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
