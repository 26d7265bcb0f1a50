"""One `influxd` 1.x: the free version has no cluster. It flushes its write-ahead log before it answers, by default."""

from __future__ import annotations

import shutil
import urllib.error
import urllib.request
from pathlib import Path

from benchmarks import packages
from benchmarks.systems.processes import Processes
from tests.process.nodes import free_port, wait_for


class Influxdb(Processes):
    """A single node; defaults, but for addresses, directories and one line of log for each request."""

    name = "influxdb"
    protocol = "influxdb"

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self.endpoints = [f"127.0.0.1:{free_port()}"]
        self._inner = f"127.0.0.1:{free_port()}"
        super().__init__(folder, ["n0"])

    def start(self) -> None:
        self.start_one(0)
        wait_for("influxdb to create a database", self._has_created_database)

    def start_one(self, position: int) -> None:
        data = self.folder / "n0"
        configuration = self.folder / "influxdb.conf"
        configuration.write_text(
            f'reporting-disabled = true\nbind-address = "{self._inner}"\n'
            f'[meta]\ndir = "{data}/meta"\n[data]\ndir = "{data}/data"\nwal-dir = "{data}/wal"\n'
            f'[http]\nbind-address = "{self.endpoints[0]}"\nlog-enabled = false\n'
            "[monitor]\nstore-enabled = false\n"
        )
        self.run(position, [str(packages.program("influxdb")), "-config", str(configuration)])

    def leader(self) -> int:
        return 0

    def _has_created_database(self) -> bool:
        try:
            urllib.request.urlopen(
                f"http://{self.endpoints[0]}/query?q=CREATE%20DATABASE%20bench", data=b"", timeout=5
            ).close()
        except (OSError, urllib.error.URLError):
            return False
        return True
