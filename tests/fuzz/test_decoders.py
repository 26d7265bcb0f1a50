"""Every decoder of targets.py against damaged and meaningless bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.mutation import damaged, examples, hostile
from tests.fuzz.targets import TARGETS, Target


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
