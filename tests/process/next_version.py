"""`python -m tests.process.next_version ARGS`: this tree as if it were the next version, which brought deleting keys.

It has another version number and knows one feature level more, which that operation needs.
"""

from __future__ import annotations

import sys

import appliance
from appliance import features

appliance.__version__ = "99.0.0"
features.LEVEL += 1  # type: ignore[misc]
features.REQUIRED = {"delete": features.LEVEL}  # type: ignore[misc]

# Only now: defaults of the state machine's options are made of the level when it is imported.
from appliance.cli.main import run  # noqa: E402

if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
