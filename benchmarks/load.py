"""The load client, one process: puts a load on a cluster, reads back what was acknowledged, prints JSON.

    python -m benchmarks.load --system raftberry --workload unary --clients 64 --seconds 10 --endpoint HOST:PORT

Workloads: unary (each client one reading at a time), bulk (one stream or eight transactions in flight),
gap (one writer that goes on to the next endpoint when a call fails or takes too long).
Invariant: a rate is printed only for readings that were read back.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from typing import Final

import grpc
import numpy as np

from benchmarks.targets import TARGETS

CALL_TIMEOUT_S: Final = 30.0
GAP_ATTEMPT_S: Final = 0.25
"""The rotating writer gives a node that long; the same for both systems."""
BULK_IN_FLIGHT: Final = 8


async def run_unary(arguments: argparse.Namespace) -> dict[str, float]:
    """Each client writes one reading at a time for some seconds; clients are spread over the endpoints."""
    targets = [TARGETS[arguments.system](endpoint) for endpoint in arguments.endpoint]
    latencies: list[float] = []
    counts = [0] * arguments.clients
    begin = time.perf_counter()
    end = begin + arguments.seconds

    async def one_client(client: int) -> None:
        target = targets[client % len(targets)]
        while (start := time.perf_counter()) < end:
            await target.write_one(arguments.first_client + client, counts[client], timeout_s=CALL_TIMEOUT_S)
            counts[client] += 1
            latencies.append(time.perf_counter() - start)

    await asyncio.gather(*(one_client(client) for client in range(arguments.clients)))
    elapsed = time.perf_counter() - begin
    for client, count in enumerate(counts):
        found = await targets[-1].count_one(arguments.first_client + client)
        assert found == count, f"client {client}: {count} acknowledged, {found} read back"
    for target in targets:
        await target.close()
    p50, p99 = np.percentile(latencies, [50, 99]) * 1000
    return {
        "readings": sum(counts),
        "per_second": sum(counts) / elapsed,
        "p50_ms": float(p50),
        "p99_ms": float(p99),
    }


async def run_bulk(arguments: argparse.Namespace) -> dict[str, float]:
    """One client writes messages until --readings or --seconds are reached, through the first endpoint."""
    target = TARGETS[arguments.system](arguments.endpoint[0])
    begin = time.perf_counter()

    def is_enough(sent: int) -> bool:
        if arguments.readings:
            return sent * target.readings_per_message >= int(arguments.readings)
        return time.perf_counter() - begin >= float(arguments.seconds)

    series = arguments.series
    messages = await target.write_many(is_enough, series=series, in_flight=BULK_IN_FLIGHT)
    elapsed = time.perf_counter() - begin
    await target.close()
    reader = TARGETS[arguments.system](arguments.endpoint[-1])
    readings = messages * target.readings_per_message
    if not arguments.skip_read_back:
        found = await reader.count_many(messages=messages, series=series)
        assert found == readings, f"{readings} acknowledged, {found} read back"
    await reader.close()
    return {"readings": readings, "per_second": readings / elapsed, "seconds": elapsed}


async def run_gap(arguments: argparse.Namespace) -> dict[str, float]:
    """The longest time between two acknowledgements while something is killed from outside."""
    targets = [TARGETS[arguments.system](endpoint) for endpoint in arguments.endpoint]
    end = time.perf_counter() + arguments.seconds
    last, longest, number, current = time.perf_counter(), 0.0, 0, 0
    print("ready", flush=True)
    while time.perf_counter() < end:
        try:
            await targets[current].write_one(arguments.first_client, number, timeout_s=GAP_ATTEMPT_S)
        except grpc.aio.AioRpcError:
            current = (current + 1) % len(targets)
            continue
        now = time.perf_counter()
        longest, last, number = max(longest, now - last), now, number + 1
    longest = max(longest, time.perf_counter() - last)
    found = await targets[current].count_one(arguments.first_client)
    assert found >= number, f"{number} acknowledged, {found} read back"
    for target in targets:
        await target.close()
    return {"gap_s": longest, "readings": number}


WORKLOADS: Final = {"unary": run_unary, "bulk": run_bulk, "gap": run_gap}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--system", choices=sorted(TARGETS), required=True)
    parser.add_argument("--workload", choices=sorted(WORKLOADS), required=True)
    parser.add_argument("--endpoint", action="append", required=True, help="repeat for several")
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--first-client", type=int, default=0, help="number of the first client's series")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--readings", type=int, default=0, help="bulk: this many instead of --seconds")
    parser.add_argument("--series", type=int, default=8)
    parser.add_argument("--skip-read-back", action="store_true", help="only to see what reading back costs")
    arguments = parser.parse_args()
    print(json.dumps(asyncio.run(WORKLOADS[arguments.workload](arguments))), flush=True)


if __name__ == "__main__":
    main()
