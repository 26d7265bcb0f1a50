"""What was measured: for each figure and system one value per round.

Invariant: a figure is named by its load and its quantity ("unary-64", "rate"); titles and units belong to the names, so
that a run in slices, its tables, charts and goals speak of the same thing.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

Key = tuple[str, str]
"""(load, quantity)."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """One measured property of a load."""

    title: str
    unit: str
    is_better_high: bool = False


QUANTITIES: Final = {
    "rate": Quantity("readings", "1/s", is_better_high=True),
    "calls": Quantity("calls", "1/s", is_better_high=True),
    "p50": Quantity("p50", "ms"),
    "p99": Quantity("p99", "ms"),
    "cpu": Quantity("CPU of all nodes per 100,000 readings", "s"),
    "cpu-calls": Quantity("CPU of all nodes per 100,000 calls", "s"),
    "device": Quantity("written to the device per reading and node", "bytes"),
    "client": Quantity("the load client's share of a core", "%"),
    "rest": Quantity("at rest per reading and node", "bytes"),
    "rss": Quantity("RssAnon, worst node", "MiB"),
    "busy": Quantity("CPU, worst node", "% of a core"),
    "idle-device": Quantity("written to the device, whole machine", "bytes/s"),
    "seconds": Quantity("time", "s"),
    "gap": Quantity("longest gap", "s"),
}


@dataclass(slots=True)
class Figures:
    """Values gather here while a run goes on; each is also told to who watches."""

    values: dict[Key, dict[str, list[float]]] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    """Load -> what it is, in words."""

    failures: dict[str, dict[str, str]] = field(default_factory=dict)
    """Load -> system -> why there is no figure."""

    def note(self, load: str, title: str, quantity: str, system: str, value: float) -> None:
        assert quantity in QUANTITIES, quantity
        self.titles[load] = title
        self.values.setdefault((load, quantity), {}).setdefault(system, []).append(value)
        unit = QUANTITIES[quantity].unit
        print(
            f"  {system:12} {title}: {QUANTITIES[quantity].title} {value:,.3f} {unit}",
            file=sys.stderr,
            flush=True,
        )

    def fail(self, load: str, title: str, system: str, reason: str) -> None:
        """A load that a system did not bear, or does not offer."""
        self.titles[load] = title
        self.failures.setdefault(load, {})[system] = reason
        print(f"  {system:12} {title}: {reason}", file=sys.stderr, flush=True)

    def median(self, load: str, quantity: str, system: str) -> float | None:
        values = self.values.get((load, quantity), {}).get(system)
        return statistics.median(values) if values else None

    def systems(self) -> list[str]:
        """In the order in which they first appeared."""
        return list(dict.fromkeys(name for values in self.values.values() for name in values))

    def as_json(self) -> dict[str, Any]:
        return {
            "titles": self.titles,
            "failures": self.failures,
            "values": [
                {"load": load, "quantity": quantity, "system": system, "values": values}
                for (load, quantity), systems in self.values.items()
                for system, values in systems.items()
            ],
        }

    @classmethod
    def from_json(cls, text: Mapping[str, Any]) -> Figures:
        figures = cls(titles=dict(text["titles"]), failures=dict(text["failures"]))
        for one in text["values"]:
            key = (str(one["load"]), str(one["quantity"]))
            figures.values.setdefault(key, {})[one["system"]] = [float(value) for value in one["values"]]
        return figures


def merge(slices: Iterable[Figures]) -> Figures:
    """Of slices in the order of time: a load's later figures take the place of its earlier ones."""
    merged = Figures()
    for one in slices:
        for load in one.titles:
            merged.failures.pop(load, None)
            merged.values = {key: values for key, values in merged.values.items() if key[0] != load}
        merged.titles.update(one.titles)
        merged.failures.update(one.failures)
        merged.values.update(one.values)
    return merged


def read(path: Path) -> Figures:
    return Figures.from_json(json.loads(path.read_text("utf-8"))["figures"])
