"""nbdkit's Python plugin: a disk with a write cache that a power cut empties.

Writes stay in memory, in pages of 4 KiB, until FLUSH. Options: img=FILE, socket=FILE; lie=1 answers FLUSH at once
and keeps everything in memory, as some cards do.

Commands, one a line, on the Unix socket: `cut AFTER KEEP SEED` cuts the power after AFTER more requests that write or
flush (0: now), or a second later if so many do not come. KEEP is the percentage of unflushed pages that reach the
disk after all, chosen by SEED: a disk may write in any order. The answer is `flushes N dirty N kept N late 0|1`.
Invariant: after the cut nothing is written any more; the process ends.
"""

import os
import random
import socket
import threading

import nbdkit

API_VERSION = 2
PAGE = 4_096
LATE_S = 1.0

options = {"img": "", "socket": "", "lie": "0"}
pages = {}
lock = threading.Lock()
counts = {"flushes": 0, "until_cut": -1}
state = {"descriptor": -1, "cut": None}


def config(key, value):
    if key not in options:
        raise RuntimeError(f"unknown option {key}")
    options[key] = value


def thread_model():
    return nbdkit.THREAD_MODEL_SERIALIZE_ALL_REQUESTS


def after_fork():
    state["descriptor"] = os.open(options["img"], os.O_RDWR)
    threading.Thread(target=serve_commands, daemon=True).start()


def open(readonly):  # noqa: A001 - nbdkit's name
    return 1


def get_size(handle):
    return os.fstat(state["descriptor"]).st_size


def can_flush(handle):
    return True


def can_fua(handle):
    return nbdkit.FUA_EMULATE


def page(number):
    return pages.get(number) or os.pread(state["descriptor"], PAGE, number * PAGE)


def pread(handle, buffer, offset, flags):
    for start, number, first, size in pieces(len(buffer), offset):
        buffer[start : start + size] = page(number)[first : first + size]


def pwrite(handle, buffer, offset, flags):
    with lock:
        count_down()
        for start, number, first, size in pieces(len(buffer), offset):
            fresh = bytearray(page(number))
            fresh[first : first + size] = buffer[start : start + size]
            pages[number] = bytes(fresh)


def flush(handle, flags):
    with lock:
        count_down()
        counts["flushes"] += 1
        if options["lie"] == "1":
            return
        for number, content in pages.items():
            os.pwrite(state["descriptor"], content, number * PAGE)
        pages.clear()


def pieces(size, offset):
    """(start in the buffer, page, first byte in the page, bytes)."""
    start = 0
    while start < size:
        number, first = divmod(offset + start, PAGE)
        length = min(PAGE - first, size - start)
        yield start, number, first, length
        start += length


def count_down():
    if counts["until_cut"] > 0:
        counts["until_cut"] -= 1
    elif counts["until_cut"] == 0:
        cut_power(late=0)


def cut_power(late):
    """Called with the lock held; does not return."""
    connection, keep_percent, seed = state["cut"]
    rng = random.Random(seed)
    kept = [number for number in sorted(pages) if rng.random() * 100 < keep_percent]
    for number in kept:
        os.pwrite(state["descriptor"], pages[number], number * PAGE)
    answer = f"flushes {counts['flushes']} dirty {len(pages)} kept {len(kept)} late {late}\n"
    connection.sendall(answer.encode())
    connection.close()
    os._exit(0)


def serve_commands():
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(options["socket"])
    listener.listen()
    connection, _ = listener.accept()
    words = connection.makefile().readline().split()
    with lock:
        state["cut"] = (connection, int(words[2]), int(words[3]))
        counts["until_cut"] = int(words[1])
        if counts["until_cut"] == 0:
            cut_power(late=0)
    threading.Event().wait(LATE_S)
    with lock:
        cut_power(late=1)
