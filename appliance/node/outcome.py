"""What a caller is told of a write that was applied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from appliance.model import Verdict
from appliance.node.proposals import Completion
from appliance.state import OperationResult


@dataclass(slots=True)
class WriteOutcome:
    """index: of the entry; of a duplicate that of the first time, 0 where it is no longer known.

    One for each write: not frozen, which would take twice as long to make.
    """

    index: int
    term: int
    duplicate: bool
    mod_revision: int
    deleted: bool
    series_count: int


Tell = Callable[[WriteOutcome | Exception], None]
"""Takes the outcome of a write: of one that was not applied, or of which that is not known, the error."""


def outcome_of(completion: Completion) -> WriteOutcome:
    """Of a completion without an error."""
    result = completion.result
    assert isinstance(result, OperationResult)
    return WriteOutcome(
        index=result.index,
        term=completion.term,
        duplicate=result.verdict is Verdict.DUPLICATE,
        mod_revision=result.mod_revision,
        deleted=result.deleted,
        series_count=result.series_count,
    )
