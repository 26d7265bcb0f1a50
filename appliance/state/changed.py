"""Windows of a roll-up that differ from what was written of them before: the others need not be in the log again.

A late reading has all windows from its own on computed anew, for nobody notes which of them it fell into.
Called on a pool thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from appliance.state.columns import Columns, Times, find
from appliance.state.emptied import Windows
from appliance.state.results import Aggregation
from appliance.state.sweep import SeriesView, read_ascending
from appliance.storage.store import StoreReader

MEAN_TOLERANCE: Final = 1e-13
"""Of itself. Count, least and greatest value are compared to the bit."""


def changed_windows(
    computed: Windows, written: Mapping[Aggregation, SeriesView], reader: StoreReader
) -> Times:
    """Where those begin of which any figure is new or another, ascending. written: the series of them, if any."""
    changed: Times = np.empty(0, np.int64)
    for aggregation, columns in computed.items():
        view = written.get(aggregation)
        times = columns.times
        if view is not None and len(times):
            times = times[~_is_written(aggregation, columns, view, reader)]
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


def _is_written(
    aggregation: Aggregation, columns: Columns, view: SeriesView, reader: StoreReader
) -> NDArray[np.bool_]:
    """Of each window: whether the view holds it, to the bit; a mean's last bits hang on how its readings were cut."""
    times, values = columns.times, columns.values
    is_same = np.zeros(len(times), np.bool_)
    for piece in read_ascending(view, reader, first=int(times[0]), last=int(times[-1])):
        if piece.values.dtype != values.dtype:
            break
        begin = int(np.searchsorted(times, piece.times[0]))
        end = int(np.searchsorted(times, piece.times[-1], side="right"))
        if begin == end:
            continue
        places, is_known = find(times[begin:end], piece.times)
        before, now = piece.values[places], values[begin:end]
        is_equal = before.view(np.int64) == now.view(np.int64)
        if aggregation is Aggregation.MEAN:
            is_equal |= np.isclose(before, now, rtol=MEAN_TOLERANCE, atol=0.0)
        is_same[begin:end] = is_equal & is_known
    return is_same
