"""The systems that are measured, by name."""

from __future__ import annotations

from pathlib import Path

from benchmarks.systems.etcd import Etcd
from benchmarks.systems.raftberry import Raftberry
from benchmarks.systems.system import System

__all__ = ["Etcd", "System", "make"]


def make(name: str, folder: Path) -> System:
    """A fresh cluster: raftberry, etcd (its defaults), etcd-500ms (election timeout as ours)."""
    if name == "raftberry":
        return Raftberry(folder)
    return Etcd(folder, election_ms=500 if name == "etcd-500ms" else 1_000)
