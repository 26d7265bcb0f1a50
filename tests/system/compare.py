"""Figures of the installed package beside those of other servers in Debian, in one machine, one after the other.

Prints a Markdown table. Run by script/test-system --compare. Medians of STARTS starts; the machine does nothing else.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

from tests.system.machines import Machine, Network, wait_until

STARTS = 5
REST_S = 8.0
UNITS = {
    "raftberry": "raftberry",
    "etcd-server": "etcd",
    "nats-server": "nats-server",
    "influxdb": "influxdb",
    "mosquitto": "mosquitto",
}


def main() -> None:
    repository = Path(os.environ["RAFTBERRY_REPOSITORY"])
    network = Network(["compare"])
    try:
        with tempfile.TemporaryDirectory(dir=repository.parent) as folder:
            machine = Machine("compare", Path(os.environ["RAFTBERRY_BASE"]), Path(folder), repository)
            try:
                machine.boot()
                show(machine)
            finally:
                machine.close()
    finally:
        network.close()


def show(machine: Machine) -> None:
    package = next(Path(os.environ["RAFTBERRY_REPOSITORY"]).glob("pool/main/r/raftberry/raftberry_*.deb"))
    inside = f"/srv/repository/{package.relative_to(os.environ['RAFTBERRY_REPOSITORY'])}"
    for unit in UNITS.values():
        machine.sh("systemctl", "disable", "--now", unit, is_checked=False)
    machine.sh("apt-get", "install", "-y", "-q", inside, timeout_s=900)
    print("| | .deb, MB | installed, MB | start to active, s | RSS at rest, MB | RssAnon, MB | exposure |")
    print("|---|---|---|---|---|---|---|")
    for name, unit in UNITS.items():
        size = (
            package.stat().st_size
            if name == "raftberry"
            else int(os.environ[f"SIZE_{name.replace('-', '_')}"])
        )
        installed_kib = int(machine.sh("dpkg-query", "-W", "-f", "${Installed-Size}", name))
        start_s = statistics.median(start(machine, unit) for _ in range(STARTS))
        time.sleep(REST_S)
        rss_kib, anonymous_kib = memory(machine, unit)
        exposure = (
            machine.sh("systemd-analyze", "security", unit, "--no-pager")
            .rsplit(".service: ", 1)[1]
            .split()[0]
        )
        machine.sh("systemctl", "stop", unit)
        version = machine.sh("dpkg-query", "-W", "-f", "${Version}", name)
        print(
            f"| {name} {version} | {size / 1e6:.1f} | {installed_kib / 1e3:.0f} | {start_s:.2f} | {rss_kib / 1e3:.0f} "
            f"| {anonymous_kib / 1e3:.0f} | {exposure} |",
            flush=True,
        )
    times = [command_s(machine) for _ in range(STARTS)]
    print(f"\n`raftberry version`: {statistics.median(times):.2f} s, first {times[0]:.2f} s")


def start(machine: Machine, unit: str) -> float:
    machine.sh("systemctl", "stop", unit)
    machine.sh("systemctl", "reset-failed", unit, is_checked=False)
    began = time.monotonic()
    machine.sh("systemctl", "start", unit)
    return time.monotonic() - began + wait_until(f"{unit} is active", lambda: is_active(machine, unit), 300)


def is_active(machine: Machine, unit: str) -> bool:
    return machine.sh("systemctl", "is-active", unit, is_checked=False).strip() == "active"


def memory(machine: Machine, unit: str) -> tuple[int, int]:
    """(RSS, RssAnon) in KiB of all processes of the unit."""
    group = machine.sh("systemctl", "show", unit, "-p", "ControlGroup", "--value").strip()
    script = (
        f"for p in $(cat /sys/fs/cgroup/compare{group}/cgroup.procs /sys/fs/cgroup{group}/cgroup.procs 2>/dev/null | "
        "sort -u); do grep -E '^(VmRSS|RssAnon)' /proc/$p/status; done"
    )
    totals = {"VmRSS:": 0, "RssAnon:": 0}
    for line in machine.sh("sh", "-c", script).splitlines():
        name, size_kib, _ = line.split()
        totals[name] += int(size_kib)
    return totals["VmRSS:"], totals["RssAnon:"]


def command_s(machine: Machine) -> float:
    """Seconds of `raftberry version`, without those of entering the machine."""
    began = time.monotonic()
    machine.sh("true")
    entering_s = time.monotonic() - began
    began = time.monotonic()
    machine.sh("raftberry", "version")
    return time.monotonic() - began - entering_s


main()
