"""Which sequences of which producer were applied: a retried write counts once.

Invariant: a sequence inside the window of a known producer is marked exactly if its operation took
effect. A refused operation is not marked: its retry is judged anew.
Of the latest sequences (DETAILS_MAX at most) the index of the entry, a fingerprint of the content
and the result are kept as well: a duplicate can name its first time, other content is noticed.
Producers are forgotten in the order of their last marked operation, which follows command time.
Loop thread only.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Final

from appliance import limits
from appliance.errors import InvalidArgument, SequenceReused, SequenceTooOld
from appliance.state.moment import Moments
from appliance.state.names import check_name

DETAILS_MIN: Final = 8
DETAILS_MAX: Final = 256
"""12 to 20 bytes each; enough for what one stream has in flight."""

WINDOW_MASK: Final = (1 << (limits.PRODUCER_WINDOW + 1)) - 1

assert DETAILS_MAX >= limits.STREAM_IN_FLIGHT_MAX


@dataclass(frozen=True, slots=True)
class FirstTime:
    """What is known of the operation a duplicate repeats. index 0: no longer known."""

    index: int = 0
    result: int = 0


class Producer:
    """bits: bit i is set if sequence highest - i was applied. used: order of the last mark.

    indexes, fingerprints, results: rings over the details_size latest sequences, slot
    sequence % details_size; a slot counts only while the sequence's bit is set and its index is not
    0 (marked while the ring was smaller). results is empty until the first result other than 0.
    """

    __slots__ = ("bits", "fingerprints", "highest", "indexes", "producer_id", "results", "used")

    def __init__(self, producer_id: str) -> None:
        self.producer_id = producer_id
        self.highest = 0
        self.bits = 0
        self.used = 0
        self.indexes = array("Q", bytes(8 * DETAILS_MIN))
        self.fingerprints = array("I", bytes(4 * DETAILS_MIN))
        self.results = array("Q")

    @property
    def details_size(self) -> int:
        return len(self.indexes)

    def is_seen(self, sequence: int) -> bool:
        """Raises SequenceTooOld below the window."""
        below = self.highest - sequence
        if below < 0:
            return False
        if below > limits.PRODUCER_WINDOW:
            raise SequenceTooOld(
                f"sequence {sequence} of producer {self.producer_id} is more than {limits.PRODUCER_WINDOW} "
                f"below its highest, {self.highest}: whether it was applied is no longer known"
            )
        return bool(self.bits >> below & 1)

    def first_time(self, sequence: int, fingerprint: int) -> FirstTime:
        """Of a seen sequence. Raises SequenceReused where other content is known."""
        if self.highest - sequence >= self.details_size:
            return FirstTime()
        slot = sequence % self.details_size
        if not self.indexes[slot]:
            return FirstTime()
        if self.fingerprints[slot] != fingerprint:
            raise SequenceReused(
                f"sequence {sequence} of producer {self.producer_id} was applied before with other content "
                f"(index {self.indexes[slot]}): nothing was written; use a higher sequence"
            )
        return FirstTime(self.indexes[slot], self.results[slot] if self.results else 0)

    def mark(self, sequence: int, *, fingerprint: int, index: int, result: int) -> None:
        above = sequence - self.highest
        if above > 0:
            # Beyond the window nothing of the bits remains; the shift must not grow with the gap.
            self.bits = (self.bits << above & WINDOW_MASK if above <= limits.PRODUCER_WINDOW else 0) | 1
            self.highest = sequence
        else:
            self.bits |= 1 << -above
        size = self.details_size
        if size < DETAILS_MAX and (self.bits & ((1 << size) - 1)).bit_count() > size // 2:
            self._grow()
            size *= 2
        if self.highest - sequence >= size:
            return
        slot = sequence % size
        self.indexes[slot] = index
        self.fingerprints[slot] = fingerprint
        if result and not self.results:
            self.results = array("Q", bytes(8 * size))
        if self.results:
            self.results[slot] = result

    def _grow(self) -> None:
        old = self.details_size
        indexes, fingerprints, results = self.indexes, self.fingerprints, self.results
        self.indexes = array("Q", bytes(16 * old))
        self.fingerprints = array("I", bytes(8 * old))
        self.results = array("Q", bytes(16 * old)) if results else array("Q")
        for sequence in range(max(self.highest - old + 1, 1), self.highest + 1):
            slot = sequence % (2 * old)
            self.indexes[slot] = indexes[sequence % old]
            self.fingerprints[slot] = fingerprints[sequence % old]
            if results:
                self.results[slot] = results[sequence % old]


class ProducerTable:
    """records is ordered by use, the longest unused first; read-only outside."""

    def __init__(self, producers_max: int) -> None:
        self._producers_max = producers_max
        self.records: dict[str, Producer] = {}
        self.uses = 0
        self.dirty: set[str] = set()
        self.moments: Moments[Producer] = Moments()

    @property
    def is_full(self) -> bool:
        return len(self.records) >= self._producers_max

    def load(self, producers: list[Producer]) -> None:
        """Take over the records of a checkpoint."""
        for producer in sorted(producers, key=lambda producer: producer.used):
            self.records[producer.producer_id] = producer

    def changed(self) -> tuple[list[Producer], list[str]]:
        """(dirty ones, ids of those that were forgotten)."""
        records = self.records
        changed = [records[producer_id] for producer_id in self.dirty if producer_id in records]
        return changed, sorted(producer_id for producer_id in self.dirty if producer_id not in records)

    def find_first_time(self, producer_id: str, sequence: int, fingerprint: int) -> FirstTime | None:
        """None: not applied yet. Raises NotApplied: not to be applied."""
        producer = self.records.get(producer_id)
        if producer is None:
            check_name("producer_id", producer_id)
            return None
        return producer.first_time(sequence, fingerprint) if producer.is_seen(sequence) else None

    def mark(self, producer_id: str, sequence: int, *, fingerprint: int, index: int, result: int) -> None:
        """The operation took effect. May forget the producer that was silent longest."""
        producer = self.records.pop(producer_id, None)
        if producer is None:
            producer = Producer(producer_id)
            if self.is_full:
                longest_silent = next(iter(self.records))
                del self.records[longest_silent]
                self.dirty.add(longest_silent)
        self.moments.before_change(producer)
        self.records[producer_id] = producer
        self.uses += 1
        producer.used = self.uses
        producer.mark(sequence, fingerprint=fingerprint, index=index, result=result)
        self.dirty.add(producer_id)


def check_sequence(producer_id: str, sequence: int) -> bool:
    """Whether the operation is to be told from its retries."""
    if sequence and not producer_id:
        raise InvalidArgument("producer_id", "a sequence needs a producer_id")
    return bool(sequence)
