"""Namespaces of one's own for a whole run: network, mounts and processes.

Invariant: all that a run starts, mounts and makes lives inside, and the kernel ends it with the run's first process,
however that ends: nothing has to be cleaned up, and runs at the same time can't meet.
"""

from __future__ import annotations

import os
import subprocess
from typing import Final

_NAMESPACES: Final = ("--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
_CHOICES: Final = (
    ("unshare", *_NAMESPACES),
    ("unshare", "--user", "--map-root-user", *_NAMESPACES),
)
"""As root, or as anybody where the kernel lets users have namespaces."""

_PROBE: Final = """
mount -t tmpfs tmpfs /run && ip netns add probe && ip link add hub0 type bridge &&
ip link add port type veth peer name eth0 netns probe && nsenter --net=/run/netns/probe -- true
"""

PREPARE: Final = 'mount -t tmpfs tmpfs /run && exec "$@"'


def find_sandbox() -> tuple[tuple[str, ...], str]:
    """(what stands before a command that shall run inside, why there is none). One of the two is empty."""
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
    reasons = []
    for choice in _CHOICES:
        try:
            done = subprocess.run(
                (*choice, "sh", "-c", _PROBE), env=environment, capture_output=True, text=True, timeout=60,
                check=False,
            )  # fmt: skip
        except OSError as error:
            reasons.append(str(error))
            continue
        if done.returncode == 0:
            return (*choice, "sh", "-c", PREPARE, "sandbox"), ""
        reasons.append(done.stderr.strip())
    return (), "; ".join(reasons)
