"""What is read of the state as it stands, between two applied entries. Loop thread only."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from appliance.model import Configuration, Member, Position
from appliance.state.access import AccessTable
from appliance.state.keys import KeySlices
from appliance.state.moment import Moment
from appliance.state.oldest import SeriesBytes, bytes_of
from appliance.state.results import KeyRecord, SeriesInfo, SeriesLatest
from appliance.state.retention import Retention
from appliance.state.series import Series
from appliance.state.series_table import id_of
from appliance.state.tables import Tables


class StateReads:
    """Of the tables that the state machine changes."""

    _tables: Tables

    @property
    def position(self) -> Position:
        """Index and term of the last applied entry; (1, 0) at birth."""
        return self._tables.position

    @property
    def revision(self) -> int:
        return self._tables.keys.revision

    @property
    def elapsed_ns(self) -> int:
        """Sum of the commands' elapsed time: what ttl counts."""
        return self._tables.elapsed_ns

    @property
    def series_count(self) -> int:
        return len(self._tables.series.by_name)

    @property
    def series_version(self) -> tuple[int, int]:
        """Another one whenever a series came or went: how many there are, and the id of the next."""
        return self.series_count, self._tables.series.next_id

    @property
    def reading_count(self) -> int:
        return self._tables.series.reading_count

    @property
    def key_count(self) -> int:
        return len(self._tables.keys.records)

    @property
    def key_bytes(self) -> int:
        """Of keys and their values."""
        return self._tables.keys.size_bytes

    def latest(self, sensor: str, metric: str) -> Iterator[SeriesLatest]:
        """By globs ('' is '*'), in order of (sensor, metric); series without a reading are left out."""
        moment = self.begin_latest(sensor, metric)
        moment.capture_all()
        return moment.results()

    def begin_latest(
        self, sensor: str, metric: str, is_visible: Callable[[str, str], bool] | None = None
    ) -> Moment[Series, SeriesLatest]:
        """The same, a slice a turn."""
        return self._tables.series.begin_matching(sensor, metric, latest_of, is_visible)

    def series(self, sensor: str, metric: str) -> Iterator[SeriesInfo]:
        """By globs ('' is '*'), in order of (sensor, metric)."""
        moment = self.begin_series(sensor, metric)
        moment.capture_all()
        return moment.results()

    def begin_series(
        self, sensor: str, metric: str, is_visible: Callable[[str, str], bool] | None = None
    ) -> Moment[Series, SeriesInfo]:
        """The same, a slice a turn."""
        return self._tables.series.begin_matching(sensor, metric, info_of, is_visible)

    def begin_survey(self) -> Moment[Series, SeriesBytes]:
        """What each series holds and what of it may go, in the order in which they were created."""
        table, droppable_before = self._tables.series, self._tables.retention.droppable_before
        return table.begin_all(lambda series: bytes_of(series, droppable_before(series)), id_of)

    def producer_highest(self, producer_id: str) -> int:
        """The highest sequence that took effect; 0: the producer is not known."""
        producer = self._tables.producers.records.get(producer_id)
        return producer.highest if producer else 0

    def remembers_producer(self, producer_id: str) -> bool:
        """Whether what this producer wrote would be known: it is known, or nobody was ever forgotten."""
        return producer_id in self._tables.producers.records or not self._tables.producers.is_full

    def key(self, key: str) -> KeyRecord | None:
        return self._tables.keys.records.get(key)

    def keys(self, prefix: str, limit: int = 0) -> list[KeyRecord]:
        """In order of keys; limit 0: all."""
        return self._tables.keys.list_prefix(prefix, limit=limit)

    def begin_keys(
        self, prefix: str, limit: int = 0, is_visible: Callable[[str], bool] | None = None
    ) -> KeySlices:
        """The same, of those that are visible, a slice a turn."""
        return KeySlices(self.keys(prefix, 0 if is_visible else limit), is_visible, limit)

    def members(self) -> tuple[Member, ...]:
        """By member id; empty until FoundCluster was applied."""
        return self._tables.configuration.members

    @property
    def configuration(self) -> Configuration:
        """The committed one: as of position."""
        return self._tables.configuration

    @property
    def access(self) -> AccessTable:
        """Tokens and invites; read-only."""
        return self._tables.access

    @property
    def retention(self) -> Retention:
        """Policies and how far series are rolled up; read-only."""
        return self._tables.retention

    def find_series(self, sensor: str, metric: str) -> Series | None:
        """Read-only."""
        return self._tables.series.by_name.get((sensor, metric))

    def series_names(self) -> list[tuple[str, str]]:
        """In the order in which they were created."""
        return list(self._tables.series.by_name)


def latest_of(series: Series) -> SeriesLatest | None:
    if series.integer is None:
        return None
    return SeriesLatest(series.sensor, series.metric, series.integer, series.last_time, series.last_value)


def info_of(series: Series) -> SeriesInfo:
    has_readings = series.integer is not None
    return SeriesInfo(
        sensor=series.sensor,
        metric=series.metric,
        integer=series.integer,
        unit=series.unit,
        labels=series.labels or {},
        reading_count=series.reading_count,
        first_time=series.first_time if has_readings else None,
        last_time=series.last_time if has_readings else None,
        size_bytes=series.size_bytes,
    )
