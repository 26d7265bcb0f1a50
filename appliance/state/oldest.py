"""Which readings go when there are too many bytes: those before one time, of all series. Pure functions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from appliance.state.series import Series


class SeriesBytes(NamedTuple):
    """size_bytes: of durable blocks."""

    sensor: str
    metric: str
    first_time: int
    last_time: int
    size_bytes: int


def bytes_of(series: Series) -> SeriesBytes | None:
    """None: nothing durable that could go."""
    if series.integer is None or not series.size_bytes:
        return None
    return SeriesBytes(series.sensor, series.metric, series.first_time, series.last_time, series.size_bytes)


def oldest_time_to_free(series: list[SeriesBytes], share: float) -> int | None:
    """The time before which about that share of the bytes lies, were they spread evenly over each series' time.

    None: no reading is older than another.
    """
    if not series:
        return None
    first = np.array([one.first_time for one in series], np.float64)
    last = np.array([one.last_time for one in series], np.float64)
    size = np.array([one.size_bytes for one in series], np.float64)
    low, high = float(first.min()), float(last.max())
    if not low < high:
        return None
    for _ in range(48):
        middle = (low + high) / 2
        below = np.clip((middle - first) / np.maximum(last - first, 1), 0, 1)
        if float((below * size).sum()) < share * float(size.sum()):
            low = middle
        else:
            high = middle
    return int(high)
