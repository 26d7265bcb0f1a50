"""Every decoder of targets.py against damaged and meaningless bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import CorruptData
from appliance.state.layouts import STATE_KEY
from tests.fuzz.mutation import damaged, examples, hostile
from tests.fuzz.targets import TARGETS, Target, image_records_once


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_a_decoder_answers_with_its_value_or_with_our_error(name: str) -> None:
    target = TARGETS[name]

    @given(_inputs(target))
    @examples(target.examples)
    def run(data: bytes) -> None:
        try:
            target.run(data)
        except target.answers:
            pass

    run()


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_what_is_valid_is_decoded(name: str) -> None:
    """Else the damage would be done to nothing."""
    for seed in TARGETS[name].seeds:
        TARGETS[name].run(seed)


def _inputs(target: Target) -> st.SearchStrategy[bytes]:
    if not target.words:
        return hostile(target.seeds)
    pieces = st.lists(st.sampled_from([*target.words, *target.seeds]), max_size=6).map(b"".join)
    return st.one_of(hostile(target.seeds), pieces, damaged(pieces))


def test_a_figure_that_cannot_be_counted_up_is_corrupt() -> None:
    """Found by atheris: apply went on with it, and the next checkpoint ended the node."""
    keys = [key for _, key, _ in image_records_once()]
    tables = [table for table, _, _ in image_records_once()]
    for place, record in (
        (keys.index(STATE_KEY), b"\x01" + b"\xff" * 32),
        (tables.index("keys"), b"\x01" + b"\xff" * 32 + bytes(8)),
        (tables.index("heads"), b"\x02" + b"\xff" * 8 + bytes(50)),
    ):
        with pytest.raises(CorruptData, match="a count of"):
            TARGETS["store_record"].run(bytes([place]) + record)
