"""The state machines: same entries, same verdicts, same hash; local state never goes back within a process."""

from __future__ import annotations

from appliance.state import Applied, QuerySpec
from tests.simulation.checkers.base import Checker
from tests.simulation.checkers.reference import Reference, signature
from tests.simulation.failure import CheckFailed, require
from tests.simulation.node import Process

HASH_EVERY = 199
"""Entries between two comparisons of the whole state: a hash costs more than all other checks."""


class StateChecker(Checker):
    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        self._hashes: dict[int, bytes] = {}
        self._positions: dict[int, int] = {}
        self.hash_count = 0

    def started(self, process: Process) -> None:
        self._positions[process.station] = process.core.state.position.index

    def stepped(self, process: Process) -> None:
        position = process.core.state.position.index
        if position < self._positions[process.station]:
            raise CheckFailed(
                "local_reads_monotonic",
                f"{process.machine.name} went back from {self._positions[process.station]} to {position}",
            )
        self._positions[process.station] = position
        if position != process.core.engine.applied_index:
            raise CheckFailed(
                "index_order",
                f"{process.machine.name}: state at {position}, applied {process.core.engine.applied_index}",
            )

    def applied(self, process: Process, applied: Applied) -> None:
        reference = self.reference
        if applied.index == reference.index + 1:
            reference.apply(applied)
        elif applied.index > reference.index:
            raise CheckFailed("state_machine_safety", f"{process.machine.name} applied {applied.index} first")
        elif reference.signatures[applied.index - 2] != signature(applied):
            raise CheckFailed(
                "state_machine_safety",
                f"{process.machine.name} applied entry {applied.index} to {signature(applied)}, others to "
                f"{reference.signatures[applied.index - 2]}",
            )
        if applied.index % HASH_EVERY == 0 and not process.core.receiver.is_finishing:
            self.compare_hash(process)

    def compare_hash(self, process: Process) -> None:
        state = process.core.state
        digest = state.hash(process.core.store.snapshot())
        self.hash_count += 1
        known = self._hashes.setdefault(state.position.index, digest)
        if known != digest:
            raise CheckFailed(
                "state_hash", f"{process.machine.name} differs from others at {state.position.index}"
            )

    def compare_content(self, process: Process) -> None:
        """Against the reference: every key and reading, from heads, checkpoints and blocks."""
        core, name = process.core, process.machine.name
        keys = {record.key: (record.value, record.mod_revision) for record in core.state.keys("")}
        require(keys == self.reference.live_keys(), "content", f"{name} holds other keys than the log says")
        readings: dict[tuple[str, str], dict[int, int]] = {}
        query = core.state.prepare_query(QuerySpec("", ""), core.store.snapshot())
        for chunk in query.run():
            series = readings.setdefault((chunk.sensor, chunk.metric), {})
            series.update(zip(chunk.times.tolist(), chunk.values.tolist(), strict=True))
        for series_name, expected in sorted(self.reference.readings.items()):
            held = readings.get(series_name, {})
            require(
                held == expected,
                "content",
                f"{name}: {series_name} holds {len(held)} readings, the log says {len(expected)}",
            )
