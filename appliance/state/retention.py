"""How long readings are kept, replicated: policies by glob, what they drop, how far series are rolled up.

Invariant: what goes is named by commands, so that every node drops the same; no clock is read here. A reading whose
window has not been rolled up yet is never dropped where a policy rolls up.
A roll-up of `kitchen/temperature` to minutes is four series: `kitchen/temperature@1m.mean`, `.min`, `.max`, `.count`.
They are read as any other. Policies match them by the name they were made of, and keep them for the roll-up's time.
The leader marks a series, computes its windows from the state behind the mark, and writes them; what is written between
mark and result counts as new, so that late readings have their windows computed again. Loop thread only.

    table policies: key sensor, byte 0, metric; value: format 1, then an encoded Policy, deterministic
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from google.protobuf.message import DecodeError

from appliance import features, limits
from appliance.errors import (
    ConditionFailed,
    CorruptData,
    InvalidArgument,
    NotFound,
    Overloaded,
    WrittenByNewer,
)
from appliance.state.aggregate import has_integer_results
from appliance.state.names import check_pattern, literal_prefix, matcher
from appliance.state.results import Aggregation
from appliance.state.series import NOTHING_DROPPED, NOTHING_WRITTEN, RollUpProgress, Series
from appliance.state.series_table import SeriesTable, cost_bytes, decode_columns_of
from appliance.state.sweep import chunk_from
from appliance.units import DURATION_UNITS, format_duration
from raftberry.internal.v1 import command_pb2

RETENTION_KINDS: Final = ("set_policy", "delete_policy", "drop_readings", "mark_roll_ups", "roll_up")
ROLL_UP_FIGURES: Final = ("mean", "min", "max", "count")

_FORMAT: Final = b"\x01"
_ROLLED: Final = re.compile(
    rf"(.+)@([0-9]+)({'|'.join(DURATION_UNITS)})\.(?:{'|'.join(ROLL_UP_FIGURES)})", re.ASCII
)
_TIME_MIN: Final = -(1 << 63)


@dataclass(frozen=True, slots=True)
class RollUp:
    """keep_ns 0: for ever."""

    width_ns: int
    keep_ns: int


@dataclass(frozen=True, slots=True)
class Policy:
    """sensor, metric: globs, never empty. keep_ns 0: for ever. roll_ups: widths ascend."""

    sensor: str
    metric: str
    keep_ns: int = 0
    roll_ups: tuple[RollUp, ...] = ()

    def keep_ns_of(self, width_ns: int | None) -> int:
        """Of the readings themselves (None) or of a roll-up; 0: for ever."""
        if width_ns is None:
            return self.keep_ns
        return next((one.keep_ns for one in self.roll_ups if one.width_ns == width_ns), 0)


class _Compiled(NamedTuple):
    """A policy with what its globs were compiled to, and how both begin. rank: the least that matches decides."""

    policy: Policy
    rank: tuple[int, str, str]
    begins: tuple[str, str]
    is_sensor: Callable[[str], object]
    is_metric: Callable[[str], object]

    @classmethod
    def of(cls, policy: Policy) -> _Compiled:
        sensor, metric = policy.sensor, policy.metric
        rank = -len(sensor + metric), sensor, metric
        begins = literal_prefix(sensor), literal_prefix(metric)
        return cls(policy, rank, begins, matcher(sensor), matcher(metric))


class PolicyTable:
    """policies is read-only outside.

    Sought among those that begin as the name does: to try a thousand globs takes 2 ms. That index is made anew when one
    is sought, not with each change: a thousand are loaded at a start, one by one.
    """

    def __init__(self) -> None:
        self.policies: dict[tuple[str, str], Policy] = {}
        self._found: dict[tuple[str, str], Policy | None] = {}
        self._dirty: set[tuple[str, str]] = set()
        self._compiled: dict[tuple[str, str], _Compiled] = {}
        self._by_begin: dict[tuple[str, str], list[_Compiled]] | None = None
        self._begin_lengths: set[tuple[int, int]] = set()

    def find(self, sensor: str, metric: str) -> Policy | None:
        """The policy of the longest pattern that matches; of a roll-up, that of what it was made of."""
        name = sensor, rolled_from(metric)[0]
        if name not in self._found:
            if len(self._found) >= limits.SERIES_MAX:
                self._found.clear()
            matching = [
                one for one in self._candidates(*name) if one.is_sensor(name[0]) and one.is_metric(name[1])
            ]
            best = min(matching, key=lambda one: one.rank, default=None)
            self._found[name] = best.policy if best else None
        return self._found[name]

    def set(self, policy: Policy) -> None:
        """Raises NotApplied, with nothing changed."""
        _check(policy)
        key = policy.sensor, policy.metric
        if key not in self.policies and len(self.policies) >= limits.POLICIES_MAX:
            raise Overloaded(f"there are {limits.POLICIES_MAX} policies, the limit: delete one first")
        self._put(policy)
        self._dirty.add(key)

    def delete(self, sensor: str, metric: str) -> None:
        if self.policies.pop((sensor, metric), None) is None:
            raise NotFound(f"there is no policy for {sensor}/{metric}: nothing was changed")
        del self._compiled[sensor, metric]
        self._dirty.add((sensor, metric))
        self._forget_found()

    def load(self, key: bytes, value: bytes) -> None:
        """Take over a record of a checkpoint. CorruptData, WrittenByNewer."""
        if value[:1] != _FORMAT:
            raise WrittenByNewer(
                f"store policies {key!r}: format {value[:1].hex()} is not known to this version; start the version "
                "that wrote it, or a later one"
            )
        try:
            self._put(policy_of(command_pb2.Policy.FromString(value[1:])))
        except DecodeError as error:
            raise CorruptData(
                f"store policies {key!r}", f"{error}; rebuild this node from its peers"
            ) from error

    def records(self) -> list[tuple[bytes, bytes]]:
        """Everything as stored, by key."""
        return [(_key(key), encode_policy(policy)) for key, policy in sorted(self.policies.items())]

    def take_changes(self) -> tuple[list[tuple[bytes, bytes]], list[bytes]]:
        """(puts, deletes) since the last call, for a checkpoint."""
        dirty, self._dirty = sorted(self._dirty), set()
        puts = [(_key(key), encode_policy(self.policies[key])) for key in dirty if key in self.policies]
        return puts, [_key(key) for key in dirty if key not in self.policies]

    def _put(self, policy: Policy) -> None:
        key = policy.sensor, policy.metric
        known = self._compiled.get(key)
        self._compiled[key] = known._replace(policy=policy) if known else _Compiled.of(policy)
        self.policies[key] = policy
        self._forget_found()

    def _forget_found(self) -> None:
        self._found.clear()
        self._by_begin = None

    def _candidates(self, sensor: str, metric: str) -> Iterator[_Compiled]:
        """Among them are all that match."""
        if self._by_begin is None:
            self._by_begin = {}
            for one in self._compiled.values():
                self._by_begin.setdefault(one.begins, []).append(one)
            self._begin_lengths = {(len(begins[0]), len(begins[1])) for begins in self._by_begin}
        for of_sensor, of_metric in self._begin_lengths:
            yield from self._by_begin.get((sensor[:of_sensor], metric[:of_metric]), ())


class Retention:
    """Applies what the commands say to the series."""

    def __init__(self, series: SeriesTable) -> None:
        self.policies = PolicyTable()
        self._series = series

    def apply(self, operation: command_pb2.Operation, *, index: int, feature_level: int) -> None:
        """Raises NotApplied, with nothing changed. feature_level: of the state, the same for all who apply it."""
        match operation.WhichOneof("kind"):
            case "set_policy":
                self.policies.set(policy_of(operation.set_policy.policy))
            case "delete_policy":
                self.policies.delete(operation.delete_policy.sensor, operation.delete_policy.metric)
            case "drop_readings":
                for drop in operation.drop_readings.series:
                    self._drop(drop, index if feature_level >= features.ROLL_UPS_OUTLIVE else 0)
            case "mark_roll_ups":
                for name in operation.mark_roll_ups.series:
                    self._mark(name, index)
            case _:
                self._roll_up(operation.roll_up)

    def _drop(self, drop: command_pb2.DropBefore, index: int) -> None:
        """index 0: some members would not remember what was dropped."""
        series = self._series.by_name.get((drop.sensor, drop.metric))
        if series is None or series.integer is None:
            return
        before = min(drop.before_unix_nano, self.droppable_before(series))
        if series.last_time < before:
            if index:
                self._remember(series, before, index)
            self._series.delete(series)
        elif series.first_time < before:
            self._series.moments.before_change(series)
            bytes_before = cost_bytes(series)
            series.drop_before(before, lambda chunk, time: chunk_from(chunk, time, series))
            self._series.mark_dirty(series, cost_bytes(series) - bytes_before)

    def _remember(self, series: Series, before: int, index: int) -> None:
        """With its windows, which outlive it: a reading that comes late brings the series back, not what it had."""
        for width, counts in self._counts_of(series):
            self._series.moments.before_change(counts)
            counts.roll_up = RollUpProgress(index, ((width, before),))
            self._series.mark_dirty(counts)

    def _dropped_with_an_earlier(self, series: Series) -> int:
        """Before this time an earlier series of the name was dropped; NOTHING_DROPPED: there was none."""
        progress = [counts.roll_up for _, counts in self._counts_of(series) if counts.roll_up is not None]
        return max((before for one in progress for _, before in one.rolled_from), default=NOTHING_DROPPED)

    def _counts_of(self, series: Series) -> Iterator[tuple[int, Series]]:
        """(width, the series of its windows' counts), of the widths of its policy."""
        policy = self.policies.find(series.sensor, series.metric)
        if policy is None or rolled_from(series.metric)[1] is not None:
            return
        for one in policy.roll_ups:
            metric = roll_up_metric(series.metric, one.width_ns, "count")
            if counts := self._series.by_name.get((series.sensor, metric)):
                yield one.width_ns, counts

    def droppable_before(self, series: Series) -> int:
        """Readings from here on wait to be rolled up; NOTHING_WRITTEN: none does."""
        policy = self.policies.find(series.sensor, series.metric)
        if policy is None or not policy.roll_ups or rolled_from(series.metric)[1] is not None:
            return NOTHING_WRITTEN
        return min(time for _, time in unrolled(series, policy))

    def roll_up_obstacle(self, series: Series, width_ns: int) -> str:
        """Why windows of this width could not be written; empty: they could."""
        missing = 0
        for figure in ROLL_UP_FIGURES:
            metric = roll_up_metric(series.metric, width_ns, figure)
            found = self._series.by_name.get((series.sensor, metric))
            if found is None:
                missing += 1
                if (size := len(metric.encode())) > limits.NAME_BYTES_MAX:
                    return (
                        f"the name {metric} would have {size} bytes (limit {limits.NAME_BYTES_MAX}): write to a metric "
                        "with a shorter name"
                    )
            elif found.integer is not None and found.integer is not _is_integer(figure, series):
                holds, now = ("integers", "floats") if found.integer else ("floats", "integers")
                return (
                    f"{found.name} holds {holds} of an earlier series, the readings are {now} now: delete it "
                    f"(raftberry series delete {series.sensor} '{series.metric}@*')"
                )
        if missing > self._series.room:
            return (
                f"it needs {missing} more series, there is room for {max(self._series.room, 0)}: delete series that "
                "nobody needs"
            )
        return ""

    def _mark(self, name: command_pb2.SeriesName, index: int) -> None:
        series = self._series.by_name.get((name.sensor, name.metric))
        policy = self.policies.find(name.sensor, name.metric)
        if series is None or series.integer is None or policy is None:
            return
        self._series.moments.before_change(series)
        if series.roll_up is None:
            series.dropped_before = max(series.dropped_before, self._dropped_with_an_earlier(series))
        series.roll_up = RollUpProgress(index, tuple(unrolled(series, policy)))
        series.written_from = NOTHING_WRITTEN
        self._series.mark_dirty(series)

    def _roll_up(self, rolled: command_pb2.RollUpReadings) -> None:
        series = self._series.by_name.get((rolled.sensor, rolled.metric))
        if series is None or series.roll_up is None or series.roll_up.marked_index != rolled.mark_index:
            raise ConditionFailed(
                "the series was marked again, or deleted, since these windows were computed"
            )
        if rolled.columns:
            self._series.write(decode_columns_of(rolled.columns))
        next_time = (
            rolled.rolled_to_unix_nano if series.last_time >= rolled.rolled_to_unix_nano else NOTHING_WRITTEN
        )
        self._series.moments.before_change(series)
        progress = dict(series.roll_up.rolled_from) | {rolled.width_nano: next_time}
        series.roll_up = RollUpProgress(rolled.mark_index, tuple(sorted(progress.items())))
        self._series.mark_dirty(series)


def _is_integer(figure: str, series: Series) -> bool:
    return has_integer_results(Aggregation[figure.upper()], integer=bool(series.integer))


def unrolled(series: Series, policy: Policy) -> Iterable[tuple[int, int]]:
    """By width, the beginning of the first window that has to be computed (again); NOTHING_WRITTEN: none."""
    known = dict(series.roll_up.rolled_from) if series.roll_up else {}
    for one in policy.roll_ups:
        width = one.width_ns
        earliest = min(known.get(width, series.first_time), series.written_from)
        if earliest == NOTHING_WRITTEN:
            yield width, NOTHING_WRITTEN
            continue
        # A window whose readings were dropped in part must not be computed from what came late.
        complete = max(earliest // width, -(-series.dropped_before // width)) * width
        yield width, max(complete, _TIME_MIN)


def roll_up_metric(metric: str, width_ns: int, figure: str) -> str:
    return f"{metric}@{format_duration(width_ns)}.{figure}"


def rolled_from(metric: str) -> tuple[str, int | None]:
    """(metric that this is a roll-up of, width in ns); (metric, None): it is none."""
    if "@" not in metric:
        return metric, None
    match = _ROLLED.fullmatch(metric)
    return (match[1], int(match[2]) * DURATION_UNITS[match[3]]) if match else (metric, None)


def set_policy(policy: Policy) -> command_pb2.Operation:
    return command_pb2.Operation(set_policy=command_pb2.SetPolicy(policy=policy_message(policy)))


def delete_policy(sensor: str, metric: str) -> command_pb2.Operation:
    return command_pb2.Operation(delete_policy=command_pb2.DeletePolicy(sensor=sensor, metric=metric))


def drop_readings(drops: Iterable[tuple[str, str, int]]) -> command_pb2.Operation:
    """drops: sensor, metric, and the time before which readings go."""
    series = [
        command_pb2.DropBefore(sensor=sensor, metric=metric, before_unix_nano=before)
        for sensor, metric, before in drops
    ]
    return command_pb2.Operation(drop_readings=command_pb2.DropReadings(series=series))


def mark_roll_ups(names: Iterable[tuple[str, str]]) -> command_pb2.Operation:
    series = [command_pb2.SeriesName(sensor=sensor, metric=metric) for sensor, metric in names]
    return command_pb2.Operation(mark_roll_ups=command_pb2.MarkRollUps(series=series))


def policy_of(message: command_pb2.Policy) -> Policy:
    roll_ups = [RollUp(one.width_nano, one.keep_nano) for one in message.roll_ups]
    roll_ups.sort(key=lambda one: one.width_ns)
    return Policy(message.sensor, message.metric, message.keep_nano, tuple(roll_ups))


def policy_message(policy: Policy) -> command_pb2.Policy:
    roll_ups = [command_pb2.RollUp(width_nano=one.width_ns, keep_nano=one.keep_ns) for one in policy.roll_ups]
    return command_pb2.Policy(
        sensor=policy.sensor, metric=policy.metric, keep_nano=policy.keep_ns, roll_ups=roll_ups
    )


def encode_policy(policy: Policy) -> bytes:
    return _FORMAT + policy_message(policy).SerializeToString(deterministic=True)


def _key(name: tuple[str, str]) -> bytes:
    return f"{name[0]}\0{name[1]}".encode()


def _check(policy: Policy) -> None:
    for field, pattern in (("sensor", policy.sensor), ("metric", policy.metric)):
        check_pattern(field, pattern)
        if not pattern:
            raise InvalidArgument(field, "a policy names a glob; * means all")
    for keep_ns in (policy.keep_ns, *(one.keep_ns for one in policy.roll_ups)):
        if 0 < keep_ns < limits.KEEP_MIN_NS or keep_ns >= 1 << 63:
            raise InvalidArgument("keep_nano", "readings are kept for a minute to 292 years, or 0: for ever")
    widths = [one.width_ns for one in policy.roll_ups]
    if len(widths) > limits.ROLL_UPS_MAX or len(set(widths)) < len(widths):
        raise InvalidArgument("roll_ups", f"at most {limits.ROLL_UPS_MAX} roll-ups, each of another width")
    if any(not limits.ROLL_UP_WIDTH_MIN_NS <= width <= limits.ROLL_UP_WIDTH_MAX_NS for width in widths):
        raise InvalidArgument("roll_ups", "a window is a second to 366 days wide")
    if not policy.keep_ns and not widths:
        raise InvalidArgument("keep_nano", "the policy neither ends readings nor rolls them up")
    if policy.keep_ns and any(width > policy.keep_ns for width in widths):
        raise InvalidArgument("roll_ups", "a window is wider than the time its readings are kept")
