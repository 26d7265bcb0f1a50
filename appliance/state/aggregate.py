"""Aggregates over windows of time, from sorted readings that come in pieces.

Invariant: the result does not depend on how the readings are cut into pieces, but for the last bits of
floating-point sums. Memory: one figure of each kind for the open window; PERCENTILE alone keeps the
window's values.
NaN is skipped: a window without another value is absent from every result. MIN, MAX, FIRST and LAST keep
the kind of the series, COUNT is an integer, the others are floats (a SUM of integers is exact to 2^53; RATE and STDDEV
go by differences of integers, as 2^60 and 2^60 + 10 are the same float).
RATE is absent where a window has one time only. Vectorized: no Python loop per reading.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from appliance.errors import Overloaded
from appliance.state.columns import Columns, Times, Values
from appliance.state.results import Aggregation

PERCENTILE_READINGS_MAX: Final = 4_000_000
"""Readings of one window whose values PERCENTILE holds: 32 MB."""

NANO: Final = 1e9
TIME_MIN: Final = -(1 << 63)
INTEGER_RESULTS: Final = frozenset({Aggregation.COUNT})
KEPT_KINDS: Final = frozenset({Aggregation.MIN, Aggregation.MAX, Aggregation.FIRST, Aggregation.LAST})

Result = dict[Aggregation, Columns]


def has_integer_results(aggregation: Aggregation, *, integer: bool) -> bool:
    """Whether the values are integers, for a series that holds integers or floats."""
    return aggregation in INTEGER_RESULTS or (integer and aggregation in KEPT_KINDS)


@dataclass(slots=True, eq=False)
class _Windows:
    """Figures of consecutive windows, one row each; window is time // step.

    mean and squares are those of value - base. base: of integers the first value, of floats 0.
    """

    window: Times
    count: NDArray[np.int64]
    total: NDArray[np.float64]
    base: Values
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]
    least: Values
    greatest: Values
    first_time: Times
    first: Values
    last_time: Times
    last: Values

    def rows(self, begin: int, end: int | None) -> _Windows:
        return _Windows(*(getattr(self, name)[begin:end] for name in _Windows.__slots__))

    def absorb_before(self, earlier: _Windows) -> None:
        """earlier: one row, the first part of our first window (Chan et al., parallel variance)."""
        counts = earlier.count[0] + self.count[0]
        delta = (_differences(self.base[:1], earlier.base) + self.mean[0] - earlier.mean)[0]
        self.squares[0] += earlier.squares[0] + delta * delta * earlier.count[0] * self.count[0] / counts
        self.base[0] = earlier.base[0]
        self.mean[0] = earlier.mean[0] + delta * self.count[0] / counts
        self.total[0] += earlier.total[0]
        self.count[0] = counts
        self.least[0] = min(self.least[0], earlier.least[0])
        self.greatest[0] = max(self.greatest[0], earlier.greatest[0])
        self.first_time[0] = earlier.first_time[0]
        self.first[0] = earlier.first[0]


class Aggregator:
    """Feed pieces in order of time, then finish. step_ns 0: one window, labelled by label or its first time."""

    def __init__(
        self, aggregations: tuple[Aggregation, ...], *, step_ns: int, quantile: float, label: int | None
    ) -> None:
        self._aggregations = aggregations
        self._step_ns = step_ns
        self._quantile = quantile
        self._label = label
        self._open: _Windows | None = None
        self._open_values: list[Values] = []

    def run(self, pieces: Iterator[Columns]) -> Iterator[Result]:
        """Results of the windows that are complete, some at a time, ascending."""
        with np.errstate(all="ignore"):
            for piece in pieces:
                piece = _without_nan(piece)
                if len(piece.times):
                    yield from self._feed(piece)
            if self._open is not None:
                yield self._results(
                    self._open, self._percentiles(self._open_values, [len(self._open_values)])
                )

    def _feed(self, piece: Columns) -> Iterator[Result]:
        windows, begins = _reduce(piece, self._step_ns)
        count = len(windows.window)
        values = np.split(piece.values, begins[1:]) if self._needs_values else []
        if self._open is None:
            groups = [[value] for value in values]
        elif self._open.window[0] == windows.window[0]:
            windows.absorb_before(self._open)
            groups = [
                [*self._open_values, value] if not place else [value] for place, value in enumerate(values)
            ]
        else:
            groups = [self._open_values, *([value] for value in values)]
            windows = _join(self._open, windows)
            count += 1
        self._open = windows.rows(count - 1, None)
        self._open_values = groups[-1] if groups else []
        if sum(map(len, self._open_values)) > PERCENTILE_READINGS_MAX:
            raise Overloaded(
                f"a window has more than {PERCENTILE_READINGS_MAX} readings, too many for a percentile; "
                "ask for shorter windows (step) or a shorter range"
            )
        if count > 1:
            complete = groups[:-1]
            flat = [value for group in complete for value in group]
            yield self._results(
                windows.rows(0, count - 1), self._percentiles(flat, [len(group) for group in complete])
            )

    @property
    def _needs_values(self) -> bool:
        return Aggregation.PERCENTILE in self._aggregations

    def _percentiles(self, values: list[Values], groups: list[int]) -> NDArray[np.float64]:
        """Linear interpolation within each window; groups: how many arrays belong to each."""
        if not self._needs_values:
            return np.empty(0)
        sizes = np.array([len(value) for value in values])
        ends = np.cumsum(groups)
        counts = np.add.reduceat(sizes, np.concatenate(([0], ends[:-1])))
        column = np.concatenate(values).astype(np.float64)
        owner = np.repeat(np.arange(len(counts)), counts)
        column = column[np.lexsort((column, owner))]
        begins = np.cumsum(counts) - counts
        place = self._quantile * (counts - 1)
        below = np.floor(place).astype(np.int64)
        above = np.minimum(below + 1, counts - 1)
        low, high = column[begins + below], column[begins + above]
        share = place - below
        # The difference of two infinities is not a number.
        return np.where((share == 0) | (low == high), low, low + (high - low) * share)

    def _results(self, windows: _Windows, percentiles: NDArray[np.float64]) -> Result:
        labels = self._labels(windows)
        results: Result = {}
        for aggregation in self._aggregations:
            if aggregation is Aggregation.RATE:
                several = windows.last_time > windows.first_time
                results[aggregation] = Columns(labels[several], _rates(windows)[several])
            elif aggregation is Aggregation.PERCENTILE:
                results[aggregation] = Columns(labels, percentiles)
            else:
                results[aggregation] = Columns(labels, _figure(windows, aggregation))
        return results

    def _labels(self, windows: _Windows) -> Times:
        if not self._step_ns:
            return windows.first_time if self._label is None else np.array([self._label], np.int64)
        labels = windows.window * self._step_ns
        # The window that holds the earliest times of all may begin below what int64 can say.
        return np.where(labels > windows.first_time, TIME_MIN, labels)


def _figure(windows: _Windows, aggregation: Aggregation) -> Values:
    figures: dict[Aggregation, Values] = {
        Aggregation.MIN: windows.least,
        Aggregation.MAX: windows.greatest,
        Aggregation.MEAN: windows.total / windows.count,
        Aggregation.SUM: windows.total,
        Aggregation.COUNT: windows.count,
        Aggregation.FIRST: windows.first,
        Aggregation.LAST: windows.last,
        Aggregation.STDDEV: np.sqrt(windows.squares / windows.count),
    }
    return figures[aggregation]


def _rates(windows: _Windows) -> NDArray[np.float64]:
    # The difference of two int64 fits uint64 even where it overflows int64.
    elapsed = (windows.last_time - windows.first_time).view(np.uint64).astype(np.float64)
    rates: NDArray[np.float64] = _differences(windows.last, windows.first) / elapsed * NANO
    return rates


def _differences(values: Values, bases: Values) -> NDArray[np.float64]:
    """values - bases; of integers exact before they are made floats."""
    if values.dtype == np.float64:
        floats: NDArray[np.float64] = values - bases
        return floats
    above = (values - bases).view(np.uint64).astype(np.float64)
    below = (bases - values).view(np.uint64).astype(np.float64)
    return np.where(values >= bases, above, -below)


def _without_nan(piece: Columns) -> Columns:
    if piece.values.dtype != np.float64:
        return piece
    is_nan = np.isnan(piece.values)
    return Columns(piece.times[~is_nan], piece.values[~is_nan]) if is_nan.any() else piece


def _reduce(piece: Columns, step_ns: int) -> tuple[_Windows, NDArray[Any]]:
    """Figures of each window in the piece, and where each begins."""
    times, values = piece.times, piece.values
    window = np.floor_divide(times, step_ns) if step_ns else np.zeros(len(times), np.int64)
    begins = np.concatenate(([0], np.flatnonzero(window[1:] != window[:-1]) + 1))
    counts = np.diff(np.append(begins, len(times)))
    is_float = values.dtype == np.float64
    totals = np.add.reduceat(values.astype(np.float64), begins)
    bases = np.zeros(len(begins)) if is_float else values[begins]
    shifted = values if is_float else _differences(values, np.repeat(bases, counts))
    means = (totals if is_float else np.add.reduceat(shifted, begins)) / counts
    deviations = shifted - np.repeat(means, counts)
    ends = begins + counts - 1
    return (
        _Windows(
            window=window[begins],
            count=counts,
            total=totals,
            base=bases,
            mean=means,
            squares=np.add.reduceat(deviations * deviations, begins),
            least=np.minimum.reduceat(values, begins),
            greatest=np.maximum.reduceat(values, begins),
            first_time=times[begins],
            first=values[begins],
            last_time=times[ends],
            last=values[ends],
        ),
        begins,
    )


def _join(earlier: _Windows, later: _Windows) -> _Windows:
    return _Windows(
        *(np.concatenate((getattr(earlier, name), getattr(later, name))) for name in _Windows.__slots__)
    )
