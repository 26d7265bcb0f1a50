"""Nothing is allocated, and no time is spent, on the word of a message."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final

from tests.process.nodes import ROOT

CPU_S_MAX: Final = 120
"""All of them take some seconds; one that never ends is ended by the kernel."""


def test_bytes_that_claim_much_cost_little() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "generated")))}
    limited = ("prlimit", f"--cpu={CPU_S_MAX}", "--", sys.executable, "-m", "tests.fuzz.bombs")
    done = subprocess.run(limited, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-600:]}\n{done.stderr[-3000:]}"
    assert "none went off" in done.stdout
