"""What a user does on three machines, in this order, with a sensor that writes all the time.

Each test leaves the machines as the next one finds them; run with -x. Run by script/test-system.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.process.nodes import ROOT
from tests.system.conftest import NAMES, Sensor, Site
from tests.system.machines import Machine, wait_until

pytestmark = pytest.mark.timeout(1_800)

BACK_S = 300.0
"""On an idle host a node is back after seconds; the test runs beside other work too."""
SOURCES = """\
Types: deb
URIs: file:/srv/repository
Suites: bookworm
Components: main
Signed-By: /etc/apt/keyrings/raftberry.gpg
"""
A_YEAR_S = 365 * 24 * 3_600


def install(machine: Machine, what: str = "raftberry") -> str:
    return machine.sh("apt-get", "install", "-y", "-q", what, timeout_s=900)


def use_repository(machine: Machine, key: Path) -> None:
    """apt has this source alone. key: the keyring that script/repo left beside it."""
    (machine.root / "etc/apt/keyrings").mkdir(parents=True, exist_ok=True)
    (machine.root / "etc/apt/keyrings/raftberry.gpg").write_bytes(key.read_bytes())
    machine.write("/etc/apt/sources.list", "")
    machine.write("/etc/apt/sources.list.d/raftberry.sources", SOURCES)


def wait_until_back(machine: Machine) -> float:
    """Until the unit is active and the node knows a leader."""

    def is_back() -> bool:
        text = machine.unit("ActiveState", "StatusText")
        return (
            text["ActiveState"] == "active"
            and "leader none" not in text["StatusText"]
            and "term" in text["StatusText"]
        )

    return wait_until(f"{machine.name} is back", is_back, BACK_S)


def test_apt_installs_by_name_from_the_signed_repository(site: Site) -> None:
    for machine in site.machines.values():
        site.note(f"{machine.name} booted in {machine.boot():.1f} s")
        use_repository(machine, Path(os.environ["RAFTBERRY_REPOSITORY"]) / "raftberry-archive-keyring.gpg")
        machine.sh("apt-get", "update", "-q")
        install(machine, f"raftberry={os.environ['RAFTBERRY_VERSION']}")
        assert machine.is_active()


def test_what_is_installed_is_a_usable_cluster_of_one(site: Site) -> None:
    machine = site.machines["pi-1"]
    wait_until_back(machine)
    machine.sh("raftberry", "write", "kitchen", "temperature", "21.5")
    assert "21.5" in machine.sh("raftberry", "latest")
    wait_until(
        "the status says that there is no copy elsewhere",
        lambda: "cluster of one: no copy elsewhere" in machine.unit("StatusText")["StatusText"],
    )
    assert machine.status_of("ss -tln | grep -E ':744[01]' | grep -v 127.0.0.1") == 1, (
        "it listens beyond loopback"
    )
    assert machine.sh("stat", "-c", "%a %U", "/var/lib/raftberry").strip() == "700 raftberry"


def test_a_command_leaves_nothing_and_writes_nothing_to_the_card(site: Site) -> None:
    machine = site.machines["pi-1"]
    assert machine.sh("sh", "-c", "stat -f -c %T /dev/shm").strip() == "tmpfs"
    machine.sh("raftberry", "version")
    assert machine.sh("find", "/dev/shm", "/tmp", "/var/tmp", "-name", "_MEI*").strip() == ""


def test_the_unit_is_locked_down(site: Site) -> None:
    shown = site.machines["pi-1"].sh("systemd-analyze", "security", "raftberry", "--no-pager")
    exposure = float(shown.rsplit("raftberry.service: ", 1)[1].split()[0])
    site.note(f"systemd-analyze security: exposure {exposure}")
    assert exposure <= 1.5


def test_log_lines_have_fields(site: Site) -> None:
    found = site.machines["pi-1"].sh(
        "journalctl", "-u", "raftberry", "RAFTBERRY_EVENT=became_leader", "-o", "cat", "--no-pager"
    )
    assert found.startswith("became_leader term=1")


def test_three_machines_found_a_cluster(site: Site) -> None:
    addresses = site.network.addresses
    members = ", ".join(f'{name} = "{addresses[name]}:7441"' for name in NAMES)
    for name, machine in site.machines.items():
        machine.sh("systemctl", "stop", "raftberry")
        machine.sh("sh", "-c", "rm -rf /var/lib/raftberry/*")
        machine.write(
            "/etc/raftberry/conf.d/cluster.toml",
            f"[cluster]\ninitial_members = {{ {members} }}\n"
            f'[client]\naddress = "{addresses[name]}:7440"\n[peer]\naddress = "{addresses[name]}:7441"\n'
            "[security]\ninsecure = true\n",
        )
    # No quorum yet: ready is about this node, not about the others.
    site.machines["pi-1"].sh("systemctl", "start", "raftberry")
    assert site.machines["pi-1"].is_active()
    for name in ("pi-2", "pi-3"):
        site.machines[name].sh("systemctl", "start", "raftberry")
    for machine in site.machines.values():
        wait_until_back(machine)
    site.sensor = Sensor([site.endpoint(name) for name in NAMES])
    assert site.writes(3)["acknowledged"] > 0
    site.note(site.machines["pi-1"].sh("systemctl", "status", "raftberry", "--no-pager"))


def test_a_killed_node_comes_back_by_itself(site: Site) -> None:
    for machine in site.machines.values():
        before = int(machine.unit("NRestarts")["NRestarts"])
        machine.sh("systemctl", "kill", "-s", "KILL", "raftberry")
        wait_until(
            "systemd restarts it", lambda m=machine, n=before: int(m.unit("NRestarts")["NRestarts"]) > n
        )
        took = wait_until_back(machine)
        site.note(f"{machine.name}: SIGKILL, back {took:.1f} s after the restart; {site.writes(1)}")
        process = machine.unit("MainPID")["MainPID"]
        unpacked = machine.sh("ls", f"/proc/{process}/root/dev/shm").split()
        assert len(unpacked) == 1, f"what the killed process had unpacked is still there: {unpacked}"


def test_a_frozen_process_is_restarted_by_the_watchdog(site: Site) -> None:
    machine = site.machines["pi-2"]
    before = machine.unit("NRestarts")
    machine.sh("systemctl", "kill", "-s", "STOP", "raftberry")
    took = wait_until(
        "the watchdog restarts it",
        lambda: int(machine.unit("NRestarts")["NRestarts"]) > int(before["NRestarts"]),
    )
    wait_until_back(machine)
    journal = machine.sh("journalctl", "-u", "raftberry", "--no-pager", "-n", "120", "-o", "cat")
    assert "Watchdog timeout" in journal
    assert "Fatal Python error: Aborted" in journal, "the watchdog's signal shows what every thread did"
    site.note(f"pi-2: SIGSTOP, restarted by the watchdog after {took:.1f} s; {site.writes(1)}")


def test_a_machine_reboots(site: Site) -> None:
    name = site.leader() or "pi-1"
    took = site.machines[name].reboot()
    wait_until_back(site.machines[name])
    site.note(f"{name} (it led): rebooted in {took:.1f} s; {site.writes(1)}")


def test_a_leader_without_its_cable_is_replaced(site: Site) -> None:
    name = site.leader() or "pi-1"
    site.network.cut(name)
    took = wait_until("another machine leads", lambda: site.leader() not in ("", name))
    site.network.mend(name)
    wait_until_back(site.machines[name])
    site.note(f"{name} cut off: another leads after {took:.1f} s; {site.writes(1)}")


def test_a_full_disk_stops_one_node_until_there_is_space(site: Site) -> None:
    machine = site.machines["pi-3"]
    machine.sh("sh", "-c", "cat /dev/zero > /var/lib/raftberry/ballast", is_checked=False)
    wait_until("a commit fails", lambda: int(machine.unit("NRestarts")["NRestarts"]) > 0)
    assert site.writes(3)["acknowledged"] > 0, "the two others go on"
    machine.sh("rm", "/var/lib/raftberry/ballast")
    took = wait_until_back(machine)
    journal = machine.sh("journalctl", "-u", "raftberry", "--no-pager", "-o", "cat", "-p", "crit")
    site.note(
        f"pi-3: disk full, back {took:.1f} s after there was space; {site.writes(1)}\n{journal.splitlines()[-1:]}"
    )


def test_a_clock_that_jumps_a_year_and_back_loses_nothing(site: Site) -> None:
    """The kernel's clock belongs to all machines: one node's own is moved, under it, by libfaketime."""
    machine = site.machines["pi-2"]
    library = machine.sh("sh", "-c", "ls /usr/lib/*/faketime/libfaketimeMT.so.1").strip()
    machine.write("/etc/raftberry/time", "+0")
    machine.write(
        "/etc/systemd/system/raftberry.service.d/time.conf",
        f"[Service]\nEnvironment=LD_PRELOAD={library} FAKETIME_TIMESTAMP_FILE=/etc/raftberry/time FAKETIME_NO_CACHE=1 "
        "FAKETIME_DONT_FAKE_MONOTONIC=1 DONT_FAKE_MONOTONIC=1\n",
    )
    machine.sh("systemctl", "daemon-reload")
    machine.sh("systemctl", "restart", "raftberry")
    wait_until_back(machine)
    for jump_s in (A_YEAR_S, -A_YEAR_S, 0):
        machine.write("/etc/raftberry/time", f"{jump_s:+d}")
        assert site.writes(3)["acknowledged"] > 0
        wait_until_back(machine)
    (machine.root / "etc/systemd/system/raftberry.service.d/time.conf").unlink()
    machine.sh("systemctl", "daemon-reload")
    machine.sh("systemctl", "restart", "raftberry")
    wait_until_back(machine)
    site.note(f"pi-2: clock a year ahead, a year behind and back; {site.writes(1)}")


def test_a_reload_changes_the_log_level_in_the_running_process(site: Site) -> None:
    machine = site.machines["pi-1"]
    before = machine.unit("MainPID")
    machine.write("/etc/raftberry/conf.d/log.toml", '[log]\nlevel = "debug"\n')
    machine.sh("systemctl", "reload", "raftberry")
    found = "journalctl -u raftberry -o cat | grep -c 'reloaded level=debug'"
    wait_until("it says so", lambda: machine.status_of(found) == 0, BACK_S)
    assert machine.sh("sh", "-c", found).strip() == "1", "the signal arrives once, although two processes run"
    (machine.root / "etc/raftberry/conf.d/log.toml").unlink()
    machine.sh("systemctl", "reload", "raftberry")
    assert (machine.unit("MainPID"), machine.is_active()) == (before, True)


def test_apt_upgrades_node_by_node_under_load(site: Site) -> None:
    publish("RAFTBERRY_NEXT_DEB")
    site.writes()
    for machine in site.machines.values():
        machine.sh("sh", "-c", "echo '# edited by the operator' >> /etc/raftberry/raftberry.toml")
        machine.sh("apt-get", "update", "-q")
        machine.sh("apt-get", "upgrade", "-y", "-q", "-o", "Dpkg::Options::=--force-confold", timeout_s=900)
        wait_until_back(machine)
        assert (
            machine.sh("dpkg-query", "-W", "-f", "${Version}", "raftberry")
            == os.environ["RAFTBERRY_NEXT_VERSION"]
        )
        assert "edited by the operator" in machine.sh("tail", "-n", "1", "/etc/raftberry/raftberry.toml")
        site.note(f"{machine.name}: upgraded; {site.writes(1)}")


def test_a_downgrade_across_formats_is_refused_with_a_reason(site: Site) -> None:
    publish("RAFTBERRY_FAR_DEB")
    machine = site.machines["pi-3"]
    machine.sh("apt-get", "update", "-q")
    machine.sh("apt-get", "upgrade", "-y", "-q", timeout_s=900)
    wait_until_back(machine)
    old = os.environ["RAFTBERRY_FAR_DEB_BEFORE"]
    refused = machine.sh("sh", "-c", f"dpkg -i {old} 2>&1", is_checked=False)
    assert "cannot read the data that" in refused, refused
    machine.sh("systemctl", "start", "raftberry")
    wait_until_back(machine)
    site.note(next(line for line in refused.splitlines() if "refusing to go" in line))


def test_every_node_holds_exactly_what_was_acknowledged(site: Site) -> None:
    assert site.sensor is not None
    stopped = site.sensor.ask("stop")
    for name in NAMES:
        machine = site.machines[name]
        wait_until_back(machine)
        wait_until(f"{name} has caught up", lambda n=name: is_complete(site, n))
    site.note(
        f"checked on each of three nodes: {stopped['acknowledged']} acknowledged writes, none missing, none twice"
    )
    site.note(site.machines["pi-1"].sh("systemctl", "status", "raftberry", "--no-pager"))
    site.note(site.machines["pi-1"].sh("journalctl", "-u", "raftberry", "--no-pager", "-n", "25"))


def test_remove_keeps_the_readings_and_purge_forgets_them(site: Site) -> None:
    machine = site.machines["pi-1"]
    machine.sh("apt-get", "remove", "-y", "-q", "raftberry")
    assert machine.status_of("test -e /var/lib/raftberry/identity") == 0
    assert machine.status_of("test -e /etc/raftberry/raftberry.toml") == 0
    assert machine.status_of("command -v raftberry") != 0
    machine.sh("apt-get", "purge", "-y", "-q", "raftberry")
    assert machine.status_of("test -e /var/lib/raftberry || test -e /etc/raftberry") != 0
    assert machine.status_of("getent passwd raftberry") != 0
    left = machine.sh(
        "sh",
        "-c",
        "find / -xdev -name '*raftberry*' | grep -vE '^/(proc|sys|srv)|apt|journal'",
        is_checked=False,
    )
    assert left.strip() == "", left
    site.note("removed: data kept; purged: data, configuration and user gone")


def is_complete(site: Site, name: str) -> bool:
    assert site.sensor is not None
    try:
        site.sensor.ask(f"check {site.endpoint(name)}")
    except AssertionError:
        return False
    return True


def publish(variable: str) -> None:
    """Put a package into the repository that the machines see."""
    subprocess.run(
        [str(ROOT / "script/repo"), os.environ["RAFTBERRY_REPOSITORY"], os.environ[variable]],
        check=True, capture_output=True,
    )  # fmt: skip
