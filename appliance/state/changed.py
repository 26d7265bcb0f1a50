"""Windows of a roll-up that differ from what was written of them before: the others need not be in the log again.

A late reading has all windows from its own on computed anew, for nobody notes which of them it fell into.
Called on a pool thread.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from appliance.state.columns import Columns, Times, concatenate
from appliance.state.emptied import Windows
from appliance.state.results import Aggregation
from appliance.state.sweep import SeriesView, read_ascending
from appliance.storage.store import StoreReader


def changed_windows(
    computed: Windows, written: Mapping[Aggregation, SeriesView], reader: StoreReader
) -> Times:
    """Where those begin of which any figure is new or another, ascending. written: the series of them, if any."""
    changed: Times = np.empty(0, np.int64)
    for aggregation, columns in computed.items():
        view = written.get(aggregation)
        is_same = _is_written(columns, view, reader) if view is not None and len(columns.times) else None
        times = columns.times if is_same is None else columns.times[~is_same]
        changed = np.union1d(changed, times)
    return changed


def only_windows(computed: Windows, wanted: Times) -> Windows:
    """computed without what is not wanted, nor figures of which nothing is left."""
    kept: Windows = {}
    for aggregation, columns in computed.items():
        is_wanted = np.isin(columns.times, wanted)
        if is_wanted.any():
            kept[aggregation] = Columns(columns.times[is_wanted], columns.values[is_wanted])
    return kept


def _is_written(columns: Columns, view: SeriesView, reader: StoreReader) -> NDArray[np.bool_]:
    """Of each window: whether the view holds it, to the bit."""
    first, last = int(columns.times[0]), int(columns.times[-1])
    pieces = list(read_ascending(view, reader, first=first, last=last))
    is_same = np.zeros(len(columns.times), np.bool_)
    if not pieces:
        return is_same
    before = concatenate(pieces)
    if before.values.dtype != columns.values.dtype:
        return is_same
    places = np.minimum(np.searchsorted(before.times, columns.times), len(before.times) - 1)
    is_known = before.times[places] == columns.times
    bits, bits_before = columns.values.view(np.int64), before.values[places].view(np.int64)
    same: NDArray[np.bool_] = is_known & (bits == bits_before)
    return same
