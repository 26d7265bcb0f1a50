"""A node stays small, whoever is behind."""

from __future__ import annotations

import pytest

from appliance.node import log_sizes
from appliance.node.options import NodeOptions
from tests.node.harness import cluster, put

TINY = NodeOptions(journal_bytes_max=4_000, watch_keep_bytes=0, checkpoint_bytes_min=300)


def test_a_transfer_that_takes_long_does_not_let_the_journal_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_sizes, "MARK_BYTES", 200)
    with cluster(options=TINY) as made:
        leader, behind = made.elect(), made.followers[0]
        pair = leader.core.me.member_id, behind.core.me.member_id
        made.disconnect(*pair)
        made.loses = lambda _, __, frame: frame.HasField("snapshot_chunk")

        def write(count: int) -> None:
            for number in range(count):
                leader.core.submit(put(f"k{number}", bytes(100)), made.clock.now_ns + 10**10, lambda _: None)
                made.run_for(20)

        write(60)
        assert leader.core.log.anchor.index > behind.core.log.last_index
        made.connect()
        made.run_for(500)
        held_from = leader.core.sender.oldest_index()
        assert held_from is not None, "a transfer is under way, and stays so"
        write(10)
        assert leader.core.log.anchor.index <= held_from
        write(100)
        assert leader.core.sender.oldest_index() == held_from
        assert leader.core.housekeeping.sizes.total_bytes < TINY.journal_bytes_max + 1_000
