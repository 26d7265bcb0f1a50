"""Which readings go when there are too many bytes: those before one time, of all series. Pure function."""

from __future__ import annotations

import numpy as np

from appliance.state.series import Series


def oldest_time_to_free(series: list[Series], share: float) -> int | None:
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
