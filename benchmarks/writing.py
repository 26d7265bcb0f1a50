"""The loads that write, each between two looks at the counters: rate, latency, CPU of the nodes, bytes to the device.

Invariant: what the client reads back afterwards is in none of the figures.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import machine
from benchmarks.client import ClientFailed, Load, Result
from benchmarks.figures import Figures
from benchmarks.systems import System


@dataclass(frozen=True, slots=True)
class WriteLoad:
    """One shape of load; the client knows how each system takes it."""

    key: str
    title: str
    clients: int
    in_flight: int = 1
    batch: int = 1
    series: int = 0
    """0: one for each client."""

    series_per_message: int = 1
    is_stream: bool = False
    is_at_leader: bool = False

    def options(self, first_series: int) -> list[str | float]:
        return [
            *("--clients", self.clients, "--in-flight", self.in_flight, "--batch", self.batch),
            *("--series", self.series or self.clients, "--series-per-message", self.series_per_message),
            *("--first-series", first_series),
            *(("--streams",) if self.is_stream else ()),
        ]


UNARY: Final = (
    WriteLoad("unary-1", "unary, 1 client at the leader", 1, is_at_leader=True),
    *(
        WriteLoad(f"unary-{clients}", f"unary, {clients:,} clients", clients)
        for clients in (16, 64, 256, 1000)
    ),
)
STREAM: Final = (
    *(
        WriteLoad(
            f"stream-{batch}", f"64 streams, {batch:,} a message, 1 in flight", 64, 1, batch, is_stream=True
        )
        for batch in (1, 10, 100, 1000)
    ),
    WriteLoad("stream-1-deep", "64 streams, 1 a message, 8 in flight", 64, 8, is_stream=True),
)
BULK: Final = (
    *(
        WriteLoad(
            key,
            f"bulk, 1,000 of one sensor a message, {in_flight} in flight",
            1,
            in_flight,
            1000,
            8,
            is_stream=True,
            is_at_leader=True,
        )
        for key, in_flight in (("bulk", 8), ("bulk-deep", 64))
    ),
    WriteLoad(
        "bulk-many",
        "bulk, 1 of each of 1,000 sensors a message, 8 in flight",
        *(1, 8, 1000, 1000, 1000),
        is_stream=True,
        is_at_leader=True,
    ),
)
SETS: Final = {"unary": UNARY, "stream": STREAM, "bulk": BULK}
SERIES_APART: Final = 10_000
"""Each load of a cluster has series of its own from a multiple of this."""


def measure_set(
    figures: Figures, system: System, folder: Path, loads: Sequence[WriteLoad], seconds: float
) -> None:
    """All loads of a set on one running cluster."""
    for number, load in enumerate(loads):
        try:
            measure(figures, system, folder, load, ["--seconds", seconds], first_series=number * SERIES_APART)
        except ClientFailed as failure:
            figures.fail(load.key, load.title, system.name, str(failure))


def measure(
    figures: Figures,
    system: System,
    folder: Path,
    load: WriteLoad,
    extent: Sequence[str | float],
    *,
    first_series: int,
) -> Result:
    """extent: how much, as options of the client. What the client itself took is told with the rest."""
    endpoints = leader_first(system)[: 1 if load.is_at_leader else None]
    client = Load(system.protocol, "write", endpoints, *load.options(first_series), *extent, "--pause")
    client.wait_for("ready")
    os.sync()
    device, before = machine.device_bytes_written(folder), machine.usages(system.pids())
    client.go_on()
    client.wait_for("written")
    after = machine.usages(system.pids())
    os.sync()
    device_after = machine.device_bytes_written(folder)
    client.go_on()
    result = client.result()

    def note(quantity: str, value: float) -> None:
        figures.note(load.key, load.title, quantity, system.name, value)

    cpu_s = sum(late.cpu_s - early.cpu_s for early, late in zip(before, after, strict=True))
    note("rate", result["per_second"])
    note("p50", result["p50_ms"])
    note("p99", result["p99_ms"])
    note("cpu", cpu_s / result["readings"] * 100_000)
    if device is not None and device_after is not None:
        note("device", (device_after - device) / result["readings"] / len(system.pids()))
    note("client", result["client_cpu_share"] * 100)
    return result


def leader_first(system: System) -> list[str]:
    """Redis takes writes at its master only: the client opens all connections to the first endpoint there."""
    leader = system.leader()
    return system.endpoints[leader:] + system.endpoints[:leader]
