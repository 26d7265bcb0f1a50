"""The fourth machine of the system test: a sensor that writes all the time, in a network namespace of its own.

    python -m tests.system.sensor [--secured CA-FILE TOKEN] ENDPOINT...

Commands on standard input, one JSON answer a line: `counts`, `stop`, `check ENDPOINT`.
"""

from __future__ import annotations

import itertools
import json
import sys
from functools import partial
from pathlib import Path

import grpc

from tests.process.client import plain_channel, secured_channel
from tests.process.writers import KeyWriter, StreamWriter, TimedWriter, UntimedWriter


def main() -> None:
    open_channel, endpoints = plain_channel, sys.argv[1:]
    if endpoints[0] == "--secured":
        _, file, token, *endpoints = endpoints
        open_channel = partial(secured_channel, authority_pem=Path(file).read_bytes(), token=token)
    kinds = (TimedWriter, UntimedWriter, KeyWriter, StreamWriter)
    writers = [kind(kind.__name__, endpoints, first=number) for number, kind in enumerate(kinds)]
    for writer in writers:
        writer.client.open_channel = open_channel
        writer.start()
    for line in sys.stdin:
        command, _, argument = line.strip().partition(" ")
        answer: dict[str, object] = {}
        try:
            if command == "stop":
                for writer in writers:
                    writer.stop()
            elif command == "check":
                with open_channel(argument) as channel:
                    for writer in writers:
                        writer.check(channel)
        except (AssertionError, grpc.RpcError) as error:
            answer["error"] = str(error)[:2_000]
        times = sorted(time for writer in writers for time in writer.ack_times)
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        answer["acknowledged"] = sum(writer.acknowledged for writer in writers)
        answer["longest_gap_s"] = round(max(gaps, default=0.0), 2)
        for writer in writers:
            # Gaps are told from one question to the next.
            writer.ack_times = writer.ack_times[-1:]
        print(json.dumps(answer), flush=True)


main()
