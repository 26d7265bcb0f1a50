"""The fourth machine of the system test: a sensor that writes all the time, in a network namespace of its own.

    python -m tests.system.sensor ENDPOINT...

Commands on standard input, one JSON answer a line: `counts`, `stop`, `check ENDPOINT`.
"""

from __future__ import annotations

import itertools
import json
import sys

import grpc

from tests.process.nodes import CHANNEL_OPTIONS
from tests.process.writers import KeyWriter, StreamWriter, TimedWriter, UntimedWriter


def main() -> None:
    endpoints = sys.argv[1:]
    kinds = (TimedWriter, UntimedWriter, KeyWriter, StreamWriter)
    writers = [kind(kind.__name__, endpoints, first=number) for number, kind in enumerate(kinds)]
    for writer in writers:
        writer.start()
    for line in sys.stdin:
        command, _, argument = line.strip().partition(" ")
        answer: dict[str, object] = {}
        try:
            if command == "stop":
                for writer in writers:
                    writer.stop()
            elif command == "check":
                with grpc.insecure_channel(argument, options=CHANNEL_OPTIONS) as channel:
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
