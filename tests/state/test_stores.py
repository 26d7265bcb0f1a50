"""The state machine on the real stores: what the fake does, they do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from appliance.state import QuerySpec, StateMachine, StateOptions, sweep
from appliance.state.columns import Columns
from appliance.state.operations import delete_series, put_key
from appliance.state.series import Chunk
from appliance.storage.lmdb_store import LmdbStore
from appliance.storage.memory import MemoryDisk, MemoryStore
from appliance.storage.store import Store
from tests.state.fakes import Cluster, write

OPTIONS = StateOptions(page_bytes=256)


@pytest.fixture(params=["memory", "lmdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened: Store = (
        MemoryStore(MemoryDisk())
        if request.param == "memory"
        else LmdbStore.create(tmp_path, map_bytes=1 << 26)
    )
    yield opened
    opened.close()


def test_a_query_abandoned_among_blocks_closes_its_reader_and_no_other(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Cluster(OPTIONS)
    for begin in range(0, 4_000, 1_000):
        node.apply(write(list(range(begin, begin + 1_000)), [1.0] * 1_000))
    work = node.state.capture_checkpoint()
    store.commit(work.batch(store.snapshot))
    node.state.checkpoint_done(work)
    left, stays = (node.state.prepare_query(QuerySpec("", ""), store.snapshot()) for _ in range(2))
    decoded: list[Chunk] = []
    real = sweep.load_chunk

    def load(chunk: Chunk, *, integer: bool, where: str) -> Columns:
        decoded.append(chunk)
        left.abandon()
        return real(chunk, integer=integer, where=where)

    monkeypatch.setattr(sweep, "load_chunk", load)
    assert list(left.run()) == []
    assert len(decoded) == 1
    with pytest.raises((AssertionError, lmdb.Error)):
        left.reader.get("meta", b"")
    assert sum(len(chunk.times) for chunk in stays.run()) == 4_000
    assert len(decoded) == 1 + 4


def test_checkpoints_in_a_real_store_restore_the_same_state(store: Store) -> None:
    node = Cluster(OPTIONS)
    for turn in range(12):
        times = list(range(turn * 70, turn * 70 + 90))
        node.apply(
            write(times, [float(turn)] * 90, f"s{turn % 3}", producer_id="p", sequence=turn + 1),
            put_key(f"k{turn % 4}", b"x" * turn),
        )
        if turn == 6:
            node.apply(delete_series("s0", "*"))
        work = node.state.capture_checkpoint()
        store.commit(work.batch(store.snapshot))
        node.state.checkpoint_done(work)
        live = node.state.hash(store.snapshot())
        with store.snapshot() as reader:
            restored = StateMachine.restore(reader, OPTIONS)
        assert restored.position == store.checkpoint() == node.state.position
        assert restored.hash(store.snapshot()) == live
    spec = QuerySpec("s1", "m", start=80, end=200, descending=True)
    found = [
        time
        for chunk in node.state.prepare_query(spec, store.snapshot()).run()
        for time in chunk.times.tolist()
    ]
    assert found == list(range(159, 79, -1))
