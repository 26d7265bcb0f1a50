"""Windows of a roll-up that were written before and hold nothing but NaN now: their values were corrected to it.

Invariant: a window without any reading is none of them: its readings may have been dropped, or deleted with their
series, and roll-ups outlive them. Called on a pool thread.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from appliance.state.columns import Columns, Times
from appliance.state.results import Aggregation
from appliance.state.sweep import SeriesView, read_ascending
from appliance.storage.store import StoreReader

Windows = dict[Aggregation, Columns]


def emptied_windows(
    raw: SeriesView,
    counts: SeriesView,
    reader: StoreReader,
    computed: Windows,
    *,
    start: int,
    end: int,
    width_ns: int,
    windows_max: int,
) -> tuple[Times, int]:
    """(where they begin, ascending, from start to before end; where it was looked to).

    start and end begin windows. counts: as written before; about windows_max of them are looked at.
    """
    parts: list[Times] = []
    count = 0
    for piece in read_ascending(counts, reader, first=start, last=end - 1):
        parts.append(piece.times[piece.values > 0])
        count += len(piece.times)
        if count >= windows_max:
            end = min(end, int(piece.times[-1]) + width_ns)
            break
    written = _joined(parts)
    found = computed.get(Aggregation.COUNT)
    missing = written if found is None else np.setdiff1d(written, found.times)
    if not len(missing):
        return missing, end
    last = min(int(missing[-1]) + width_ns, end) - 1
    readings = read_ascending(raw, reader, first=int(missing[0]), last=last)
    windows = _joined(np.unique(piece.times // width_ns) * width_ns for piece in readings)
    emptied: Times = np.intersect1d(missing, windows)
    return emptied, end


def windows_before(computed: Windows, end: int) -> Windows:
    cuts = {one: int(np.searchsorted(columns.times, end)) for one, columns in computed.items()}
    return {
        one: Columns(columns.times[: cuts[one]], columns.values[: cuts[one]])
        for one, columns in computed.items()
    }


def with_emptied(computed: Windows, emptied: Times, aggregations: Iterable[Aggregation]) -> Windows:
    """computed, and count 0 and NaN for what was emptied; ascending."""
    windows: Windows = {}
    for aggregation in aggregations:
        is_count = aggregation is Aggregation.COUNT
        times, values = emptied, np.zeros(len(emptied), np.int64 if is_count else np.float64)
        if not is_count:
            values[:] = np.nan
        if (found := computed.get(aggregation)) is not None:
            times, values = np.append(found.times, times), np.append(found.values, values)
        order = np.argsort(times)
        windows[aggregation] = Columns(times[order], values[order])
    return windows


def _joined(parts: Iterable[Times]) -> Times:
    return np.concatenate([np.empty(0, np.int64), *parts])
