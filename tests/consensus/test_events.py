"""What is told of an election: every step carries the term that it belongs to (paper, section 5.2)."""

from __future__ import annotations

from tests.node.harness import cluster


def test_a_candidate_is_told_in_the_term_that_it_stands_in() -> None:
    with cluster() as made:
        leader = made.elect()
        told = {event.kind: event.term for event in leader.core.events.since(0)}
        asked_in = told["requested_vote"]
        assert told["won_pre_vote"] == asked_in - 1, "no term rises before a majority would vote"
        assert (told["became_candidate"], told["became_leader"]) == (asked_in, asked_in)
