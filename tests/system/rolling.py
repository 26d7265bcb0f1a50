"""A rolling upgrade typed on three secured systemd machines, one after the other, while a sensor writes; a transcript.

Run by script/test-walk --upgrade. Prints what was typed and what came, as docs/operating.md shows it; an AssertionError
if anything that was acknowledged is missing, or twice, on a node.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.system.conftest import Sensor
from tests.system.machines import run
from tests.system.three_machines import use_repository
from tests.system.walk import NAMES, PREFIX, ROOT, Site

CATCH_UP_S: Final = 120.0
_LAG: Final = re.compile(r"^(pi-\d)\s+\w+\s+\d+\s+pi-\d\s+\d+\s+(\d+)\s", re.MULTILINE)
_OF_THE_PACKAGE: Final = re.compile(r"^(Unpacking|Setting up) raftberry")


class Operator:
    """Types; prints each command and its output."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def quietly(self, host: str, text: str) -> list[str]:
        return self._site.shells[host].type(text)

    def type(self, host: str, text: str) -> None:
        self.show(host, text, self.quietly(host, text))

    def upgrade(self, host: str) -> None:
        self.quietly(host, "sudo apt-get update -q")
        print(f"pi@{host}:~ $ sudo apt update", flush=True)
        lines = self.quietly(host, "sudo apt-get upgrade -q -y raftberry")
        self.show(host, "sudo apt upgrade raftberry", [one for one in lines if _OF_THE_PACKAGE.match(one)])

    def status_once_it_follows(self, host: str) -> None:
        """Asks again until the node has nothing to catch up with."""
        end = time.monotonic() + CATCH_UP_S
        while True:
            lines = self.quietly(host, "sudo raftberry status")
            found = _LAG.match("\n".join(lines[1:]))
            if found and found[1] == host and int(found[2]) < 100:
                break
            assert time.monotonic() < end, lines
            time.sleep(0.5)
        self.show(host, "sudo raftberry status", lines)

    def show(self, host: str, text: str, lines: list[str]) -> None:
        print(f"pi@{host}:~ $ {text}", *lines, sep="\n", flush=True)


def form(site: Site, operator: Operator, key: Path) -> list[str]:
    """Install from the repository, make one cluster; arguments of the sensor."""
    for name, machine in site.machines.items():
        use_repository(machine, key)
        operator.quietly(name, "sudo apt-get update -q && sudo apt-get install -q -y raftberry")
    # Hosts by name: the older version may not find an address in a network without a gateway.
    invited = operator.quietly("pi-1", "sudo raftberry invite --uses 2 --host pi-1.local")
    (line,) = (one for one in invited if one.startswith("sudo raftberry join"))
    for name in NAMES[1:]:
        said = operator.quietly(name, f"{line} --advertise {name}.local")
        assert "voting member" in said[-1], said
    rights = "--write 'faults/*' --read 'faults/*' --key-write '*' --key-read '*'"
    (token,) = re.findall(
        r"rbt1_\S+", "\n".join(operator.quietly("pi-1", f"sudo raftberry token create sensor {rights}"))
    )
    operator.quietly("pi-1", "sudo raftberry token ca > raftberry-ca.pem")
    site.copy_to_laptop("scp pi@pi-1.local:raftberry-ca.pem .")
    return [
        "--secured",
        str(site.laptop / "raftberry-ca.pem"),
        token,
        *(f"{name}.local:7440" for name in NAMES),
    ]


def main(base: Path, repository: Path, old: Path, new: Path) -> None:
    key = repository / "raftberry-archive-keyring.gpg"
    print(run(str(ROOT / "script/repo"), str(repository), str(old)), file=sys.stderr)
    shutil.copy(old, repository)
    with ExitStack() as ends:
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory(dir=base.parent)))
        site = Site(base, repository / old.name, folder, ends)
        operator = Operator(site)
        sensor = Sensor(form(site, operator, key), namespace=f"{PREFIX}laptop")
        ends.callback(sensor.close)
        run(str(ROOT / "script/repo"), str(repository), str(new))
        time.sleep(3)
        total = int(sensor.ask("counts")["acknowledged"])
        operator.type("pi-1", "raftberry version")
        operator.type("pi-1", "sudo raftberry status")
        # The leader last.
        for name in (*NAMES[1:], NAMES[0]):
            operator.upgrade(name)
            operator.status_once_it_follows(name)
            counted = sensor.ask("counts")
            print(
                f"# sensor: {counted['acknowledged'] - total} more, longest gap {counted['longest_gap_s']} s",
                flush=True,
            )
            total = int(counted["acknowledged"])
        operator.type("pi-1", "raftberry version")
        operator.type("pi-1", "sudo raftberry verify")
        total = int(sensor.ask("stop")["acknowledged"])
        for name in NAMES:
            sensor.ask(f"check {name}.local:7440")
        print(f"# sensor: {total} acknowledged, each of them once on every node", flush=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:5]))
