"""A run's judge tells right histories from wrong ones: each lie is caught, and by the checker that is meant for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.model import NO_OP, REGULAR
from appliance.state.operations import encode_columns, encode_command, expire_keys, put_key, write_readings
from appliance.storage.batch import Append
from appliance.storage.lmdb_journal import LmdbJournal
from raftberry.internal.v1 import command_pb2
from tests.cluster.recorder import APPLIED, NOT_APPLIED, Done, LocalRead, Read, Recorder, Watched
from tests.cluster.verdict import (
    Command,
    Content,
    Evidence,
    Told,
    check_content,
    check_history,
    check_local_reads,
    check_watched,
    judge,
    tell,
)
from tests.simulation.failure import CheckFailed

SECOND = 1_000_000_000


def entry(*operations: command_pb2.Operation) -> Command:
    return 1, REGULAR + encode_command(operations, time_unix_nano=1, elapsed_nano=1)


def readings(identity: int, sequence: int) -> command_pb2.Operation:
    column = identity.to_bytes(8, "little")
    columns = encode_columns("cellar", "temperature", column, column, integer=True)
    return write_readings([columns], producer_id="p", sequence=sequence)


LOG: dict[int, Command] = {
    2: (1, NO_OP),
    3: entry(put_key("r0", b"1 a")),
    4: entry(readings(2, 1), put_key("r0", b"3 b")),
    5: entry(readings(4, 2)),
}


def honest() -> Recorder:
    """What clients of LOG would have recorded."""
    recorder = Recorder()
    recorder.sequences.update({("p", 1): 2, ("p", 2): 4})
    recorder.operations = [
        Done(1, "put", "r0", 0, 1 * SECOND, APPLIED, 3),
        Done(2, "write", "", 2 * SECOND, 3 * SECOND, APPLIED, 4),
        Done(3, "put", "r0", 2 * SECOND, 3 * SECOND, APPLIED, 4),
        Done(4, "write", "", 4 * SECOND, 5 * SECOND, APPLIED, 5),
        Done(9, "put", "k0", 4 * SECOND, 5 * SECOND, NOT_APPLIED),
    ]
    recorder.reads = [
        Read("r0", None, 0, 2, 0, 1),
        Read("r0", b"1 a", 1, 3, SECOND + 1, SECOND + 2),
        Read("r0", b"3 b", 2, 5, 6 * SECOND, 7 * SECOND),
    ]
    return recorder


def told(recorder: Recorder) -> Told:
    return tell(LOG, recorder, 5)


def test_an_honest_history_passes() -> None:
    recorder = honest()
    counts = check_history(recorder, told(recorder).reference, ["r0"])
    assert (counts["acknowledged"], counts["read"], counts["register_reads"]) == (4, 3, 3)


def lose_an_acknowledged_write(recorder: Recorder) -> None:
    recorder.operations.append(Done(7, "write", "", 4 * SECOND, 5 * SECOND, APPLIED, 5))


def refuse_what_was_applied(recorder: Recorder) -> None:
    recorder.operations[3] = Done(4, "write", "", 4 * SECOND, 5 * SECOND, NOT_APPLIED)


def read_what_is_old(recorder: Recorder) -> None:
    recorder.reads.append(Read("r0", b"1 a", 1, 3, 6 * SECOND, 7 * SECOND))


def read_what_was_never_there(recorder: Recorder) -> None:
    recorder.reads.append(Read("r0", b"1 a", 1, 5, 6 * SECOND, 7 * SECOND))


def order_writes_against_time(recorder: Recorder) -> None:
    recorder.operations[0] = Done(1, "put", "r0", 8 * SECOND, 9 * SECOND, APPLIED, 3)


@pytest.mark.parametrize(
    ("lie", "check"),
    [
        (lose_an_acknowledged_write, "acknowledged_is_applied"),
        (refuse_what_was_applied, "not_applied_is_final"),
        (read_what_is_old, "linearizable_reads"),
        (read_what_was_never_there, "linearizable_reads"),
        (order_writes_against_time, "linearizable_writes"),
    ],
)
def test_a_lie_of_the_history_is_caught(lie: Callable[[Recorder], None], check: str) -> None:
    recorder = honest()
    lie(recorder)
    with pytest.raises(CheckFailed) as caught:
        check_history(recorder, told(recorder).reference, ["r0"])
    assert caught.value.check == check


def test_a_key_that_expires_while_the_nodes_are_asked_is_no_lie(tmp_path: Path) -> None:
    """One node answers before that entry, the next behind it."""
    put, expire = put_key("k", b"1 a", ttl_seconds=1), expire_keys([("k", 1)])
    log = [
        REGULAR + encode_command([one], time_unix_nano=1, elapsed_nano=2 * SECOND) for one in (put, expire)
    ]
    journals = {name: tmp_path / name for name in ("n1", "n2", "n3")}
    for path in journals.values():
        journal = LmdbJournal.create(path)
        journal.commit([Append(tuple((command, index, 1) for index, command in enumerate(log, 2)))])
        journal.close()
    recorder = Recorder()
    recorder.operations = [Done(1, "put", "k", 0, 1 * SECOND, APPLIED, 2)]
    before, after = Content(2, {"k": (b"1 a", 1)}, {}), Content(3, {}, {})
    assert judge(recorder, Evidence(journals, {"n1": before, "n2": after, "n3": after}, []))["contents"] == 3
    with pytest.raises(CheckFailed, match="n3 holds other keys"):
        judge(recorder, Evidence(journals, {"n1": before, "n2": after, "n3": Content(2, {}, {})}, []))


def test_a_producers_sequence_that_was_applied_twice_is_caught() -> None:
    recorder = honest()
    twice = {**LOG, 6: entry(readings(2, 0)), 7: entry(readings(2, 0))}
    with pytest.raises(CheckFailed) as caught:
        tell(twice, recorder, 7)
    assert caught.value.check == "exactly_once"


def test_local_reads_follow_the_log_and_do_not_go_back() -> None:
    reference = told(honest()).reference
    life = ("n1", 7)
    later = LocalRead("c", life, "r0", b"3 b", 2, 4)
    earlier = LocalRead("c", life, "r0", b"1 a", 1, 3)
    check_local_reads([earlier, later], reference)
    with pytest.raises(CheckFailed, match="local_reads_monotonic"):
        check_local_reads([later, earlier], reference)
    with pytest.raises(CheckFailed, match="local_reads:"):
        check_local_reads([LocalRead("c", life, "r0", b"1 a", 1, 4)], reference)


def test_a_watch_with_a_gap_a_repetition_or_another_order_is_caught() -> None:
    log = told(honest()).watched["readings"]
    assert [index for index, _ in log] == [4, 5]
    assert check_watched(Watched("w", "readings", 2, 5, list(log)), log) == 2
    for events in ([log[1]], [log[0], log[0], log[1]], [log[1], log[0]], [log[0]]):
        with pytest.raises(CheckFailed, match="watch_order"):
            check_watched(Watched("w", "readings", 2, 5, list(events)), log)


def test_a_node_that_holds_something_else_is_caught() -> None:
    reference = told(honest()).reference
    held = {("cellar", "temperature"): {2: 2, 4: 4}}
    check_content("n1", Content(5, {"r0": (b"3 b", 2)}, held), reference)
    with pytest.raises(CheckFailed, match="content"):
        check_content("n1", Content(5, {"r0": (b"1 a", 1)}, held), reference)
    with pytest.raises(CheckFailed, match="content"):
        check_content("n1", Content(5, {"r0": (b"3 b", 2)}, {("cellar", "temperature"): {2: 2}}), reference)
