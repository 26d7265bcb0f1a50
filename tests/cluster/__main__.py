"""`python -m tests.cluster [--minutes N] [--seed S] [--folder DIR] [--form namespaces|loopback] [--kinds a,b]`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.cluster.campaign import run_campaign
from tests.cluster.faults import FAULTS
from tests.cluster.sandbox import find_sandbox

INSIDE = "CLUSTER_TEST_INSIDE"


def main() -> int:
    options = _options()
    if options.form == "namespaces" and INSIDE not in os.environ:
        sandbox, reason = find_sandbox()
        if sandbox:
            os.environ["PATH"] += ":/usr/sbin:/sbin"
            os.environ[INSIDE] = "1"
            os.execvp(sandbox[0], [*sandbox, sys.executable, "-m", "tests.cluster", *sys.argv[1:]])
        print(f"no namespaces here ({reason}): all links go through the proxy on loopback", flush=True)
        options.form = "loopback"
    folder = options.folder or Path(tempfile.mkdtemp(prefix="raftberry-cluster-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"seed {options.seed}, {options.form}, logs and result in {folder}", flush=True)
    kinds = tuple(filter(None, options.kinds.split(",")))
    result = run_campaign(
        folder, seed=options.seed, seconds=options.minutes * 60, form=options.form, kinds=kinds
    )
    print(json.dumps(asdict(result), indent=1), flush=True)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="script/test-cluster", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of faults; the end comes after it")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="for logs, data and result.json; must be empty")
    parser.add_argument("--form", choices=("namespaces", "loopback"), default="namespaces")
    parser.add_argument("--kinds", default="", help=f"once each, instead of --minutes: {', '.join(FAULTS)}")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
