"""The load client, built from benchmarks/client: one process for each load, which says when to look at the counters.

Invariant: the client writes only between its "ready" and "written"; what it reads back comes later.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
PROGRAM: Final = ROOT / "build" / "benchmarks" / "client"
VALUES: Final = ROOT / "tests" / "data" / "real-sensors"
Result = dict[str, float]


class ClientFailed(Exception):
    """A load that did not come to its end: what the client said."""


class Load:
    """A client that runs; wait_for its events in their order, then take the result."""

    def __init__(self, system: str, workload: str, endpoints: Sequence[str], *options: str | float) -> None:
        command = [str(PROGRAM), workload, "--system", system, "--values", str(VALUES)]
        for endpoint in endpoints:
            command += ["--endpoint", endpoint]
        self._what = f"{system}: {workload} {' '.join(str(option) for option in options)}"
        self.remarks = ""
        """What the client said beside its result."""

        self._process = subprocess.Popen(
            [*command, *(str(option) for option in options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, event: str) -> None:
        """Until the client says so; it goes on at go_on."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if line != event:
            self._fail(line)

    def go_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def result(self) -> Result:
        """Waits for the end."""
        out, errors = self._process.communicate()
        if self._process.returncode != 0:
            raise ClientFailed(f"{self._what} failed: {errors.strip()[-2000:]}")
        self.remarks = errors.strip()
        result: Result = json.loads(out.splitlines()[-1])
        return result

    def _fail(self, line: str) -> None:
        _, errors = self._process.communicate()
        raise ClientFailed(f"{self._what} failed: {line} {errors.strip()[-2000:]}")
