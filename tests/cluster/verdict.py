"""The log that five disks hold at the end, and what it says of all that clients saw.

Invariant: the checkers are the simulator's own (History, Reference, check_registers); this module only brings a run of
real processes into their form: entries are applied by the production state machine, in the order of the log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from appliance.api.convert import key_event_message
from appliance.limits import LOG_SLICE_BYTES_MAX, LOG_SLICE_ENTRIES_MAX
from appliance.model import Position
from appliance.state import Applied, StateMachine
from appliance.state.columns import decode_columns
from appliance.state.effects import effects
from appliance.state.entry import command_of
from appliance.storage.lmdb_journal import LmdbJournal
from tests.cluster.recorder import APPLIED, NOT_APPLIED, Done, LocalRead, Read, Recorder, Watched
from tests.simulation.checkers.reference import Reference
from tests.simulation.checkers.registers import check_registers
from tests.simulation.failure import CheckFailed, require
from tests.simulation.history import Attempted, History, RegisterRead, RegisterWrite

Readings = dict[tuple[str, str], dict[int, int]]
Command = tuple[int, bytes]
"""(term, command) of an entry."""

Step = Callable[[], None]


@dataclass(slots=True)
class Content:
    """What one node answered at the end, locally. index: where it stood."""

    index: int
    keys: dict[str, tuple[bytes, int]]
    readings: Readings


@dataclass(slots=True)
class Evidence:
    """All that a run leaves."""

    journals: Mapping[str, Path]
    contents: Mapping[str, Content]
    registers: Sequence[str]

    @property
    def committed_index(self) -> int:
        """What some node had applied: keys may expire between one node's answer and the next one's."""
        return max(content.index for content in self.contents.values())


@dataclass(slots=True)
class Told:
    """The log, told entry by entry."""

    reference: Reference
    watched: dict[str, list[tuple[int, tuple[object, ...]]]]
    terms: Counter[int] = field(default_factory=Counter)


def judge(recorder: Recorder, evidence: Evidence) -> dict[str, int]:
    """How often each check was made. Raises CheckFailed."""
    entries, counts = read_journals(evidence)
    told = tell(entries, recorder, evidence.committed_index)
    counts["entries"] = len(entries)
    counts["terms"] = len(told.terms)
    counts.update(check_history(recorder, told.reference, evidence.registers))
    counts.update(check_local_reads(recorder.local_reads, told.reference))
    for watched in recorder.watched:
        counts[f"watched_{watched.kind}"] += check_watched(watched, told.watched[watched.kind])
    for name, content in evidence.contents.items():
        check_content(name, content, told.reference)
        counts["contents"] += 1
    return dict(counts)


# the log -------------------------------------------------------------------------------------------------


def read_journals(evidence: Evidence) -> tuple[dict[int, Command], Counter[str]]:
    """Every committed entry, from whichever disks hold it: they must agree (log matching)."""
    entries: dict[int, Command] = {}
    held: Counter[int] = Counter()
    counts: Counter[str] = Counter()
    anchors: dict[str, Position] = {}
    for name, path in evidence.journals.items():
        journal = LmdbJournal.open(path)
        try:
            recovered = journal.recover()
            anchors[name] = recovered.anchor
            for command, index, term in _entries(journal, recovered.anchor.index, recovered.last.index):
                if index > evidence.committed_index:
                    break
                known = entries.setdefault(index, (term, command))
                held[index] += 1
                counts["log_matching"] += 1
                require(
                    known == (term, command),
                    "log_matching",
                    f"{name} holds another entry {index}, of term {term}, than others, of term {known[0]}",
                )
        finally:
            journal.close()
    missing = [index for index in range(2, evidence.committed_index + 1) if index not in entries]
    assert not missing, f"no disk holds entries {missing[:3]}... any more: {anchors}; the run can't be judged"
    majority = len(evidence.journals) // 2 + 1
    for index, count in held.items():
        behind_anchor = sum(anchor.index >= index for anchor in anchors.values())
        require(
            count + behind_anchor >= majority,
            "durable_on_majority",
            f"committed entry {index} is on {count} disks and in {behind_anchor} checkpoints",
        )
    return entries, counts


def _entries(journal: LmdbJournal, anchor: int, last: int) -> Iterator[tuple[bytes, int, int]]:
    first = anchor + 1
    while first <= last:
        part = journal.read(first, count_max=LOG_SLICE_ENTRIES_MAX, bytes_max=LOG_SLICE_BYTES_MAX)
        yield from part
        first = part[-1][1] + 1


def tell(entries: Mapping[int, Command], recorder: Recorder, committed_index: int) -> Told:
    """Apply the log to a state machine and to the reference."""
    reference = Reference()
    reference.by_sequence.update(recorder.sequences)
    told = Told(reference, {"readings": [], "keys": []})
    machine = StateMachine()
    for index in range(2, committed_index + 1):
        term, command = entries[index]
        applied = machine.apply(index, term, command_of(index, command))
        told.terms[term] += 1
        reference.apply(applied)
        _note_effects(told, applied)
    return told


def _note_effects(told: Told, applied: Applied) -> None:
    if applied.command is None:
        return
    brought = effects(applied.command, applied.outcome)
    readings = []
    for columns in brought.readings:
        decoded = decode_columns(columns)
        readings.append(
            (columns.sensor, columns.metric, tuple(decoded.times.tolist()), tuple(decoded.values.tolist()))
        )
    keys = []
    for event in map(key_event_message, brought.key_events):
        changed = event.key_value
        keys.append((event.kind, changed.key, changed.mod_revision, changed.value))
    for kind, content in (("readings", readings), ("keys", keys)):
        if content:
            told.watched[kind].append((applied.index, tuple(content)))


# what clients saw ----------------------------------------------------------------------------------------


def check_history(recorder: Recorder, reference: Reference, registers: Sequence[str]) -> Counter[str]:
    """Writes and linearizable reads in the order of time, then each register by itself."""
    history = History(reference)
    for _, _, step in sorted(_steps(recorder, history, registers), key=lambda step: step[:2]):
        step()
    history.check_nothing_lost()
    counts = Counter(history.counts)
    counts["register_reads"] = check_registers(history.writes, history.reads)
    return counts


def _steps(recorder: Recorder, history: History, registers: Sequence[str]) -> Iterator[tuple[int, int, Step]]:
    """(time, 0 for a beginning and 1 for an end, what the checker is told then)."""
    for operation in recorder.operations:
        write = _Write(history, operation, is_register=operation.key in registers)
        yield operation.begun_ns, 0, write.begin
        yield operation.ended_ns, 1, write.end
    for read in recorder.reads:
        seen = _Read(history, read, is_register=read.key in registers)
        yield read.begun_ns, 0, seen.begin
        yield read.ended_ns, 1, seen.end


class _Write:
    def __init__(self, history: History, operation: Done, *, is_register: bool) -> None:
        self._history, self._operation, self._is_register = history, operation, is_register

    def begin(self) -> None:
        done = self._operation
        self._attempted = Attempted(done.identity, done.kind, self._history.latest_index, done.begun_ns)

    def end(self) -> None:
        done = self._operation
        if done.outcome == APPLIED:
            self._history.was_applied(self._attempted, done.index, is_duplicate=done.is_duplicate)
        elif done.outcome == NOT_APPLIED:
            self._history.was_not_applied(self._attempted)
            return
        else:
            self._history.was_lost(self._attempted)
        if self._is_register:
            ended = done.ended_ns if done.outcome == APPLIED else None
            self._history.writes.append(RegisterWrite(done.key, done.identity, done.begun_ns, ended))


class _Read:
    def __init__(self, history: History, read: Read, *, is_register: bool) -> None:
        self._history, self._read, self._is_register = history, read, is_register

    def begin(self) -> None:
        self._after_index = self._history.latest_index

    def end(self) -> None:
        read = self._read
        self._history.was_read(read.key, read.value, read.mod_revision, read.index, self._after_index)
        if self._is_register:
            identity = int(read.value.split(b" ")[0]) if read.value is not None else 0
            self._history.reads.append(RegisterRead(read.key, identity, read.begun_ns, read.ended_ns))


def check_local_reads(reads: Sequence[LocalRead], reference: Reference) -> Counter[str]:
    """What a node held at an index, and never back within one life of it."""
    latest: dict[tuple[str, tuple[str, int]], int] = {}
    for read in reads:
        key = (read.reader, read.life)
        require(
            read.index >= latest.get(key, 0),
            "local_reads_monotonic",
            f"{read.life} answered {read.reader} at {latest.get(key)}, then at {read.index}",
        )
        latest[key] = read.index
        held = reference.key_at(read.key, read.index)
        revision = held.mod_revision if held.value is not None else 0
        require(
            (read.value, read.mod_revision) == (held.value, revision),
            "local_reads",
            f"{read.key} at {read.index} read as revision {read.mod_revision} from {read.life}, the log says "
            f"{revision}",
        )
    return Counter({"local_reads": len(reads), "lives_read": len(latest)})


def check_watched(watched: Watched, log: Sequence[tuple[int, tuple[object, ...]]]) -> int:
    """Every matching entry between the first and the last index, once, in order, with its content."""
    expected = [entry for entry in log if watched.start_index < entry[0] <= watched.last_index]
    for seen, wanted in zip(watched.events, expected, strict=False):
        if seen != wanted:
            raise CheckFailed("watch_order", f"{watched.name} was told {seen}, the log says {wanted}")
    require(
        len(watched.events) == len(expected),
        "watch_order",
        f"{watched.name} was told {len(watched.events)} entries from {watched.start_index} to "
        f"{watched.last_index}, the log holds {len(expected)}",
    )
    return len(expected)


def check_content(name: str, content: Content, reference: Reference) -> None:
    """One node's answers against the log."""
    keys = {
        key: (state.value, state.mod_revision)
        for key in reference.keys
        if (state := reference.key_at(key, content.index)).value is not None
    }
    require(content.keys == keys, "content", f"{name} holds other keys than the log says: {content.keys}")
    for series, readings in sorted(reference.readings.items()):
        held = content.readings.get(series, {})
        require(
            held == readings,
            "content",
            f"{name}: {series} holds {len(held)} readings, the log says {len(readings)}",
        )
