"""Process 1 of the machine that loses power: loads the program, waits for power, mounts the disk, runs the node.

The machine's memory is saved where this waits, and every power-up begins from that copy: the operating system is
running, the program is loaded, and neither has read a byte of the data disk. A power-up so takes seconds instead of
half a minute of emulated boot. What must not be the same twice, time and randomness, the host hands in.
"""

import ctypes
import fcntl
import os
import sys
import time
from functools import partial

import uvloop

from appliance import app
from appliance.cli import serve as _  # noqa: F401 - loads what the command loads
from appliance.config import load

DISK = "/dev/vdb"
DATA = "/var/lib/raftberry"
BLKFLSBUF = 0x1261
RNDRESEEDCRNG = 0x5207


def main() -> None:
    print("GUEST loaded", flush=True)
    words: list[str] = []
    while words[:1] != ["power"]:
        # The first byte after the memory was restored may be lost.
        words = sys.stdin.readline().split()
    time.clock_settime_ns(time.CLOCK_REALTIME, int(words[1]))
    with open("/dev/urandom", "wb") as random:
        random.write(bytes.fromhex(words[2]))
        fcntl.ioctl(random, RNDRESEEDCRNG)
    with open(DISK, "rb") as disk:
        # Nothing of the disk may come from the saved memory.
        fcntl.ioctl(disk, BLKFLSBUF)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(DISK.encode(), DATA.encode(), b"ext4", 0, b"data=ordered") != 0:
        print(f"GUEST mount failed: {os.strerror(ctypes.get_errno())}", flush=True)
        time.sleep(1_000)
    environment = dict(word.split("=", 1) for word in words[3:])
    read = partial(load, path=None, environment=environment, flags={})
    try:
        status = uvloop.run(app.serve(read()))
    except BaseException as error:  # noqa: BLE001 - the last line of this machine
        print(f"GUEST node failed: {error!r}", flush=True)
        time.sleep(1_000)
    print(f"GUEST node ended with status {status}", flush=True)
    time.sleep(1_000)


main()
