"""The key-value map with revisions, conditions and ttl.

Invariant: every change of a key takes the next revision; a refused operation takes none.
size_bytes is the sum over keys and values. Time is the commands' elapsed time only.
Loop thread only.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from itertools import islice
from operator import attrgetter
from typing import Final

from appliance import limits
from appliance.errors import ConditionFailed, InvalidArgument, Overloaded
from appliance.state.moment import ITEMS_PER_TURN, drain
from appliance.state.names import check_name
from appliance.state.results import KeyRecord, StateOptions
from raftberry.internal.v1 import command_pb2

ELAPSED_MAX: Final = (1 << 63) - 1
"""Elapsed time and deadlines stop here (292 years), whatever a command claims."""

NANO: Final = 1_000_000_000

_KEY: Final = attrgetter("key")


class KeyTable:
    """records is read-only outside.

    _in_order: the same by key, kept so: to sort a hundred thousand holds the loop for 100 ms, to place one takes 20 us.
    """

    def __init__(self, options: StateOptions) -> None:
        self._options = options
        self.records: dict[str, KeyRecord] = {}
        self.revision = 0
        self.size_bytes = 0
        self.dirty: set[str] = set()
        self._in_order: list[KeyRecord] = []
        self._deadlines: list[tuple[int, str, int]] = []
        self._ttl_count = 0

    def load(self, record: KeyRecord) -> None:
        """Take over a record of a checkpoint."""
        self._store(record)
        self.dirty.discard(record.key)

    def put(self, put: command_pb2.PutKey, *, elapsed_ns: int) -> KeyRecord:
        """Raises NotApplied, with nothing changed."""
        old = self.records.get(put.key)
        self._check_put(put, old)
        self.revision += 1
        deadline = min(elapsed_ns + put.ttl_seconds * NANO, ELAPSED_MAX) if put.ttl_seconds else None
        record = KeyRecord(
            key=put.key,
            value=put.value,
            create_revision=old.create_revision if old else self.revision,
            mod_revision=self.revision,
            version=old.version + 1 if old else 1,
            ttl_seconds=put.ttl_seconds,
            deadline_ns=deadline,
        )
        self._store(record)
        return record

    def delete(self, key: str, *, if_mod_revision: int | None) -> int | None:
        """The delete's revision; None when there was no such key. Raises ConditionFailed."""
        old = self.records.get(key)
        if if_mod_revision is not None:
            _check_condition(key, old, if_mod_revision)
        if old is None:
            return None
        self.revision += 1
        del self.records[key]
        self.size_bytes -= _size(old)
        self._ttl_count -= old.deadline_ns is not None
        del self._in_order[self._place(key)]
        self.dirty.add(key)
        return self.revision

    def expire(self, key: str, *, mod_revision: int) -> int | None:
        """Delete what nobody has put since it was found due; the delete's revision, or None."""
        record = self.records.get(key)
        if record is None or record.mod_revision != mod_revision or record.deadline_ns is None:
            return None
        return self.delete(key, if_mod_revision=None)

    def list_prefix(self, prefix: str, *, limit: int) -> list[KeyRecord]:
        """In order of keys; limit 0: all. Looks at none of them: a hundred thousand take about 1 ms."""
        begin = self._place(prefix)
        end = bisect_right(self._in_order, prefix, begin, key=lambda record: record.key[: len(prefix)])
        return self._in_order[begin : min(end, begin + limit) if limit else end]

    def due(self, *, elapsed_ns: int, limit: int) -> list[tuple[str, int]]:
        """(key, mod_revision) of keys whose ttl has elapsed, the oldest deadline first."""
        self._drop_stale()
        found: list[tuple[str, int]] = []
        taken: list[tuple[int, str, int]] = []
        while self._deadlines and self._deadlines[0][0] <= elapsed_ns and len(found) < limit:
            taken.append(heapq.heappop(self._deadlines))
            found.append(taken[-1][1:])
            self._drop_stale()
        for deadline in taken:
            heapq.heappush(self._deadlines, deadline)
        return found

    def next_deadline(self) -> int | None:
        self._drop_stale()
        return self._deadlines[0][0] if self._deadlines else None

    def _check_put(self, put: command_pb2.PutKey, old: KeyRecord | None) -> None:
        check_name("key", put.key)
        if len(put.value) > limits.VALUE_BYTES_MAX:
            raise InvalidArgument(
                "value", f"{len(put.value)} bytes; a value has at most {limits.VALUE_BYTES_MAX}"
            )
        if put.HasField("if_mod_revision"):
            _check_condition(put.key, old, put.if_mod_revision)
        if old is None and len(self.records) >= self._options.keys_max:
            raise Overloaded(
                f"there are {len(self.records)} keys, the limit: nothing was put; delete keys first"
            )
        size = self.size_bytes - (_size(old) if old else 0) + len(put.key.encode()) + len(put.value)
        if size > self._options.key_value_bytes_max:
            raise Overloaded(
                f"keys and values would have {size} bytes (limit {self._options.key_value_bytes_max}): "
                "nothing was put; delete keys first"
            )

    def _store(self, record: KeyRecord) -> None:
        old = self.records.get(record.key)
        place = self._place(record.key)
        if old is None:
            self._in_order.insert(place, record)
        else:
            self._in_order[place] = record
            self.size_bytes -= _size(old)
            self._ttl_count -= old.deadline_ns is not None
        self.records[record.key] = record
        self.size_bytes += _size(record)
        self.dirty.add(record.key)
        if record.deadline_ns is not None:
            self._ttl_count += 1
            heapq.heappush(self._deadlines, (record.deadline_ns, record.key, record.mod_revision))
            if len(self._deadlines) > 2 * self._ttl_count + 64:
                self._deadlines = [entry for entry in self._deadlines if self._is_current(entry)]
                heapq.heapify(self._deadlines)

    def _place(self, key: str) -> int:
        return bisect_left(self._in_order, key, key=_KEY)

    def _is_current(self, entry: tuple[int, str, int]) -> bool:
        record = self.records.get(entry[1])
        return record is not None and record.mod_revision == entry[2]

    def _drop_stale(self) -> None:
        while self._deadlines and not self._is_current(self._deadlines[0]):
            heapq.heappop(self._deadlines)


class KeySlices:
    """Those of the records that is_visible (None: all), at most limit (0: all), looked for a slice a turn.

    Records never change: these show the moment at which they were listed.
    """

    def __init__(
        self, records: list[KeyRecord], is_visible: Callable[[str], bool] | None, limit: int
    ) -> None:
        self._is_visible, self._limit = is_visible, limit
        self._rest = iter(records if is_visible else ())
        self._found = [] if is_visible else records

    def capture_some(self) -> bool:
        """Look at the next ones; True: that was all."""
        part = list(islice(self._rest, ITEMS_PER_TURN))
        self._found += [record for record in part if self._is_visible is None or self._is_visible(record.key)]
        if self._limit and len(self._found) >= self._limit:
            del self._found[self._limit :]
            self.close()
            return True
        return len(part) < ITEMS_PER_TURN

    def close(self) -> None:
        self._rest = iter(())

    def results(self) -> Iterator[KeyRecord]:
        """In order of keys, once."""
        return drain(self._found)


def _size(record: KeyRecord) -> int:
    return len(record.key.encode()) + len(record.value)


def _check_condition(key: str, record: KeyRecord | None, if_mod_revision: int) -> None:
    found = record.mod_revision if record else 0
    if found != if_mod_revision:
        is_now = f"has mod_revision {found}" if found else "does not exist"
        wanted = f"mod_revision {if_mod_revision}" if if_mod_revision else "no such key"
        raise ConditionFailed(f"key {key} {is_now}, the condition wants {wanted}: nothing was changed")
