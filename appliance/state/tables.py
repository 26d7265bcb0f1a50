"""Everything the state machine holds in memory, in one place for checkpoint, restore and hash.

Loop thread only.
"""

from __future__ import annotations

from appliance import features
from appliance.model import Configuration, Position
from appliance.state.access import AccessTable
from appliance.state.effects import OutcomeTable
from appliance.state.keys import KeyTable
from appliance.state.producers import ProducerTable
from appliance.state.results import StateOptions
from appliance.state.retention import Retention
from appliance.state.series_table import SeriesTable


class Tables:
    """elapsed_ns: sum of the commands' elapsed time, what ttl counts."""

    def __init__(self, options: StateOptions) -> None:
        self.position = Position(index=1, term=0)
        self.elapsed_ns = 0
        self.series = SeriesTable(options)
        self.keys = KeyTable(options)
        self.producers = ProducerTable(options.producers_max)
        self.outcomes = OutcomeTable()
        self.configuration = Configuration()
        self.configuration_changed = False
        self.access = AccessTable()
        self.feature_level = features.FIRST
        self.retention = Retention(self.series)
