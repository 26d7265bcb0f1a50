"""The systems that are measured, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmarks.systems.bare import Bare
from benchmarks.systems.etcd import Etcd
from benchmarks.systems.influxdb import Influxdb
from benchmarks.systems.nats import Nats
from benchmarks.systems.raftberry import Raftberry
from benchmarks.systems.redis import Redis
from benchmarks.systems.system import System

__all__ = ["Etcd", "System", "make"]


MAKE: Final[dict[str, Callable[[Path], System]]] = {
    "raftberry": Raftberry,
    "bare": Bare,
    "bare-grpc": lambda folder: Bare(folder, is_grpc=True),
    "etcd": Etcd,
    "etcd-500ms": lambda folder: Etcd(folder, election_ms=500),
    "nats": Nats,
    "influxdb": Influxdb,
    "redis": Redis,
}
"""etcd-500ms has our election timeout."""


def make(name: str, folder: Path) -> System:
    """A fresh cluster."""
    return MAKE[name](folder)
