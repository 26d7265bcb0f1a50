"""What apply does with each operation: verdicts, messages, limits, effects."""

from __future__ import annotations

import random

import pytest

from appliance import errors, limits
from appliance.model import Member, MemberId, Position, Verdict
from appliance.state import (
    EntryOutcome,
    KeyChange,
    KeyEvent,
    KeyEventKind,
    KeyRecord,
    OperationResult,
    StateMachine,
    StateOptions,
    effects,
)
from appliance.state.operations import (
    delete_key,
    delete_series,
    encode_command,
    expire_keys,
    found_cluster,
    put_key,
    set_series,
    write_readings,
)
from raftberry.internal.v1 import command_pb2
from tests.state.fakes import Cluster, columns, write

SECOND = 10**9


def only(node: Cluster, operation: command_pb2.Operation, elapsed_ns: int = 0) -> OperationResult:
    return node.apply(operation, elapsed_ns=elapsed_ns).results[0]


def refused(
    node: Cluster, operation: command_pb2.Operation, error: type[errors.NotApplied], text: str
) -> None:
    before = node.hash()
    result = only(node, operation)
    assert result.verdict is Verdict.REFUSED
    assert type(result.error) is error
    assert text in str(result.error)
    assert node.hash() == before


# Entries


def test_a_state_is_born_at_index_1_and_a_no_op_only_moves_it() -> None:
    state = StateMachine()
    assert state.position == Position(1, 0)
    assert state.apply(2, 3, b"").results == ()
    assert state.position == Position(2, 3)


def test_an_entry_the_checkpoint_holds_is_passed_over() -> None:
    node = Cluster()
    node.apply(put_key("k", b"1"))
    node.checkpoint()
    state = StateMachine.restore(node.store.reader())
    assert state.apply(2, 1, node.commands[2]).results == ()
    assert state.revision == 1


@pytest.mark.parametrize("command", [b"\xff\xff", b"\x08\x02", b"\x10\x01"])
def test_an_entry_that_cannot_be_read_is_fatal(command: bytes) -> None:
    with pytest.raises(errors.Fatal, match="log entry 2"):
        StateMachine().apply(2, 1, command)


def test_an_entry_out_of_order_is_a_bug() -> None:
    with pytest.raises(AssertionError):
        StateMachine().apply(3, 1, b"")


def test_an_operation_without_content_is_refused() -> None:
    refused(Cluster(), command_pb2.Operation(), errors.InvalidArgument, "holds nothing")


# Readings


def test_a_write_is_all_or_nothing() -> None:
    node = Cluster()
    node.apply(write([1], [1], "s", "count", integer=True))
    both = write_readings([columns([1], [1.0], "s", "new"), columns([2], [2.0], "s", "count")])
    refused(node, both, errors.ConditionFailed, "series s/count holds integers, this write has floats")
    twice = write_readings([columns([1], [1.0], "s", "new"), columns([2], [2], "s", "new", integer=True)])
    refused(node, twice, errors.ConditionFailed, "series s/new holds floats")
    assert node.state.series_count == 1


def test_series_are_bounded() -> None:
    node = Cluster(StateOptions(series_max=2))
    node.apply(write([1], [1.0], "a"), write([1], [1.0], "b"))
    refused(node, write([1], [1.0], "c"), errors.Overloaded, "there are 2 series (limit 2)")
    refused(node, set_series("c", "m", unit="", labels={}), errors.Overloaded, "there are 2 series (limit 2)")
    assert only(node, write([2], [2.0], "a")).verdict is Verdict.APPLIED
    assert only(node, delete_series("a", "*")).series_count == 1
    assert only(node, write([1], [1.0], "c")).verdict is Verdict.APPLIED


def test_columns_that_do_not_decode_are_refused() -> None:
    broken = columns([1], [1.0])
    broken.times = b"short"
    refused(Cluster(), write_readings([broken]), errors.InvalidArgument, "5 bytes for 1 readings")
    refused(Cluster(), write_readings([]), errors.InvalidArgument, "0 readings")


@pytest.mark.parametrize("name", ["", "x" * (limits.NAME_BYTES_MAX + 1), "a*"])
def test_names_no_request_should_bring_are_refused(name: str) -> None:
    refused(Cluster(), write([1], [1.0], name), errors.InvalidArgument, "sensor")
    refused(Cluster(), put_key(name, b""), errors.InvalidArgument, "key")
    named = write([1], [1.0], producer_id=name, sequence=1)
    refused(Cluster(), named, errors.InvalidArgument, "producer_id")


def test_latest_goes_by_time_and_then_by_order() -> None:
    node = Cluster()
    node.apply(write([10, 30, 20, 30], [1.0, 2.0, 3.0, 4.0]), write([30], [5.0]), write([29], [6.0]))
    assert [(latest.time, latest.value) for latest in node.state.latest("*", "")] == [(30, 5.0)]


def test_unit_and_labels_are_set_once() -> None:
    node = Cluster()
    first = set_series("s", "m", unit="C", labels={"b": "2", "a": "1"})
    assert only(node, first).verdict is Verdict.APPLIED
    assert only(node, first).verdict is Verdict.APPLIED
    other = set_series("s", "m", unit="F", labels={"a": "1", "b": "2"})
    refused(node, other, errors.ConditionFailed, "s/m are set already (unit 'C')")
    info = next(node.state.series("s", "m"))
    assert (info.unit, info.labels, info.integer, info.first_time) == ("C", {"a": "1", "b": "2"}, None, None)
    assert list(node.state.latest("s", "m")) == []
    too_long = set_series("s", "n", unit="x" * (limits.UNIT_BYTES_MAX + 1), labels={})
    refused(node, too_long, errors.InvalidArgument, "unit")


def test_deleted_series_leave_nothing_and_come_back_empty() -> None:
    node = Cluster(StateOptions(page_bytes=64))
    node.apply(write(list(range(50)), [1.0] * 50), write([1], [1.0], "other"))
    node.checkpoint()
    assert node.store.count("blocks") > 0
    assert only(node, delete_series("s", "[mn]")).series_count == 1
    node.apply(write([7], [7], integer=True))
    node.checkpoint()
    assert node.store.count("blocks") == 0
    assert node.state.reading_count == 2
    before = node.hash()
    node.restart()
    assert node.hash() == before
    assert next(node.state.series("s", "")).reading_count == 1


def test_an_entry_counts_the_readings_that_it_wrote() -> None:
    """Not those that were refused, or written before; a reading that overwrites another counts."""
    node = Cluster()
    once = write([1, 2], [1.0, 2.0], producer_id="p", sequence=5)
    assert node.apply(once, write([1], [9.0]), write([1], [9], integer=True)).reading_count == 3
    assert node.apply(once, write([3], [1], integer=True), put_key("k", b"v")).reading_count == 0
    lone_of_two = write_readings([columns([4], [1.0]), columns([4], [1.0], "other")])
    assert node.apply(lone_of_two, write([5, 6, 7], [1.0] * 3)).reading_count == 5


# Producers


def test_a_sequence_takes_effect_once() -> None:
    node = Cluster()
    first = only(node, write([1, 2], [1.0, 2.0], producer_id="p", sequence=5))
    again = only(node, write([1, 2], [1.0, 2.0], producer_id="p", sequence=5))
    assert (first.verdict, again.verdict, again.index) == (Verdict.APPLIED, Verdict.DUPLICATE, first.index)
    assert node.state.reading_count == 2
    assert node.state.producer_highest("p") == 5
    assert node.state.producer_highest("q") == 0


def test_a_lone_reading_is_the_same_content_whatever_time_its_node_gave_it() -> None:
    node = Cluster()
    node.apply(write([1], [1.0], producer_id="p", sequence=1))
    assert only(node, write([9], [1.0], producer_id="p", sequence=1)).verdict is Verdict.DUPLICATE


def test_a_sequence_reused_for_other_content_is_refused() -> None:
    node = Cluster()
    node.apply(write([1, 2], [1.0, 2.0], producer_id="p", sequence=1))
    for other in (
        write([1, 3], [1.0, 2.0], producer_id="p", sequence=1),
        write([1, 2], [1.0, 3.0], producer_id="p", sequence=1),
        write([1, 2], [1.0, 2.0], "t", producer_id="p", sequence=1),
        put_key("k", b"", producer_id="p", sequence=1),
    ):
        refused(node, other, errors.SequenceReused, "applied before with other content (index 2)")


def test_a_duplicate_tells_the_result_of_the_first_time() -> None:
    node = Cluster()
    put = put_key("k", b"1", producer_id="p", sequence=1)
    revision = only(node, put).mod_revision
    node.apply(put_key("k", b"2"))
    assert only(node, put) == OperationResult(Verdict.DUPLICATE, 2, mod_revision=revision)
    delete = delete_key("k", producer_id="p", sequence=2)
    assert only(node, delete).deleted
    assert only(node, delete).deleted
    node.apply(write([1], [1.0]))
    drop = delete_series("*", "*", producer_id="p", sequence=3)
    assert only(node, drop).series_count == only(node, drop).series_count == 1


def test_a_refused_operation_is_judged_anew() -> None:
    node = Cluster()
    put = put_key("k", b"1", if_mod_revision=1, producer_id="p", sequence=1)
    assert only(node, put).verdict is Verdict.REFUSED
    assert node.state.producer_highest("p") == 0
    node.apply(put_key("k", b"0"))
    assert only(node, put).verdict is Verdict.APPLIED


def test_the_window_ends_1024_below_the_highest() -> None:
    node = Cluster()
    highest = 5000
    node.apply(write([1], [1.0], producer_id="p", sequence=highest))
    edge = highest - limits.PRODUCER_WINDOW
    assert only(node, write([2], [1.0], producer_id="p", sequence=edge)).verdict is Verdict.APPLIED
    assert only(node, write([2], [1.0], producer_id="p", sequence=edge)) == OperationResult(
        Verdict.DUPLICATE, 0
    )
    too_old = write([3], [1.0], producer_id="p", sequence=edge - 1)
    refused(node, too_old, errors.SequenceTooOld, "more than 1024 below its highest, 5000")
    node.apply(write([1], [1.0], producer_id="p", sequence=(1 << 64) - 1))
    assert node.state.producer_highest("p") == (1 << 64) - 1


def test_the_first_index_is_known_for_what_a_stream_has_in_flight() -> None:
    node = Cluster()
    for sequence in range(1, 1001):
        node.apply(write([sequence], [1.0], producer_id="p", sequence=sequence))
    for back in (0, 100, limits.STREAM_IN_FLIGHT_MAX - 1):
        again = only(node, write([1000 - back], [1.0], producer_id="p", sequence=1000 - back))
        assert (again.verdict, again.index) == (Verdict.DUPLICATE, 1001 - back)
    assert only(node, write([1], [1.0], producer_id="p", sequence=1)).index == 0


def test_the_producer_that_was_silent_longest_is_forgotten() -> None:
    node = Cluster(StateOptions(producers_max=2))
    for producer in ("a", "b", "a", "c"):
        sequence = node.state.producer_highest(producer) + 1
        node.apply(write([1], [1.0], producer_id=producer, sequence=sequence))
    assert [node.state.producer_highest(producer) for producer in "abc"] == [2, 0, 1]
    node.checkpoint()
    node.restart()
    node.apply(write([1], [1.0], producer_id="d", sequence=1))
    assert [node.state.producer_highest(producer) for producer in "abcd"] == [0, 0, 1, 1]
    node.checkpoint()
    assert node.store.count("producers") == 2


def test_a_sequence_without_a_producer_is_refused_and_a_producer_without_one_is_not_told_apart() -> None:
    node = Cluster()
    refused(node, write([1], [1.0], sequence=3), errors.InvalidArgument, "producer_id")
    for _ in range(2):
        assert only(node, write([1], [1.0], producer_id="p")).verdict is Verdict.APPLIED


# Keys


def test_every_change_takes_the_next_revision() -> None:
    node = Cluster()
    node.apply(put_key("a", b"1"), put_key("b", b"1"), put_key("a", b"2"), delete_key("b"), delete_key("b"))
    record = node.state.key("a")
    assert record is not None
    assert (record.create_revision, record.mod_revision, record.version, record.value) == (1, 3, 2, b"2")
    assert node.state.revision == 4
    assert node.state.key("b") is None


def test_conditions_hold_or_nothing_changes() -> None:
    node = Cluster()
    assert only(node, put_key("a", b"1", if_mod_revision=0)).mod_revision == 1
    refused(node, put_key("a", b"2", if_mod_revision=0), errors.ConditionFailed, "key a has mod_revision 1")
    refused(node, put_key("b", b"2", if_mod_revision=1), errors.ConditionFailed, "key b does not exist")
    refused(
        node, delete_key("a", if_mod_revision=9), errors.ConditionFailed, "the condition wants mod_revision 9"
    )
    assert only(node, delete_key("a", if_mod_revision=1)).deleted


def test_keys_and_their_bytes_are_bounded() -> None:
    node = Cluster(StateOptions(keys_max=2, key_value_bytes_max=10))
    node.apply(put_key("a", b"1234"), put_key("b", b""))
    refused(node, put_key("c", b""), errors.Overloaded, "there are 2 keys")
    refused(node, put_key("b", b"12345"), errors.Overloaded, "would have 11 bytes (limit 10)")
    assert only(node, put_key("b", b"1234")).verdict is Verdict.APPLIED
    too_large = put_key("a", b"x" * (limits.VALUE_BYTES_MAX + 1))
    refused(node, too_large, errors.InvalidArgument, "a value has at most")


def test_keys_are_listed_in_order_by_prefix() -> None:
    node = Cluster()
    node.apply(*(put_key(key, b"") for key in ("b", "ab", "a", "ac", "é")))
    assert [record.key for record in node.state.keys("a")] == ["a", "ab", "ac"]
    assert [record.key for record in node.state.keys("", 2)] == ["a", "ab"]


def test_keys_stay_in_order_while_they_come_and_go() -> None:
    node, rng = Cluster(), random.Random(1)
    held: set[str] = set()
    for _ in range(500):
        key = rng.choice("abcé") + rng.choice("abcé")
        is_put = rng.random() < 0.6
        (held.add if is_put else held.discard)(key)
        node.apply(put_key(key, b"") if is_put else delete_key(key))
        for prefix in ("", "b"):
            expected = sorted(key for key in held if key.startswith(prefix))
            assert [record.key for record in node.state.keys(prefix)] == expected
            assert [record.key for record in node.state.keys(prefix, 3)] == expected[:3]


def test_a_key_that_comes_or_goes_is_placed_and_the_others_are_not_sorted() -> None:
    compared = 0

    class Counting(str):
        __slots__ = ()

        def __lt__(self, other: str) -> bool:
            nonlocal compared
            compared += 1
            return super().__lt__(other)

    node = Cluster()
    for number in range(2_000):
        node.state._tables.keys.load(KeyRecord(Counting(f"k{number * 7919 % 2_000:04}"), b"", 1, 1, 1))
    for change in (put_key("k1000a", b""), put_key("k1000", b"1"), delete_key("k0999")):
        node.apply(change)
        compared = 0
        assert len(node.state.keys("k10")) == 101
        assert len(node.state.keys("", 3)) == 3
        with node.store.reader() as reader:
            node.state.begin_hash(reader).close()
        assert compared < 200


def test_ttl_counts_the_time_that_commands_say_has_elapsed() -> None:
    node = Cluster()
    node.apply(put_key("a", b"", ttl_seconds=10), put_key("b", b"", ttl_seconds=5))
    assert node.state.next_expiry_elapsed_ns() == 5 * SECOND
    node.apply(put_key("b", b"", ttl_seconds=20), elapsed_ns=4 * SECOND)
    assert node.state.next_expiry_elapsed_ns() == 6 * SECOND
    assert node.state.due_expirations() == []
    node.apply(elapsed_ns=6 * SECOND)
    assert node.state.due_expirations() == [("a", 1)]
    assert node.state.due_expirations() == [("a", 1)]
    node.checkpoint()
    node.restart()
    due = node.state.due_expirations()
    node.apply(expire_keys([*due, ("b", 2), ("gone", 1)]))
    assert node.state.key("a") is None
    assert node.state.key("b") is not None
    assert node.state.next_expiry_elapsed_ns() == 14 * SECOND
    node.apply(put_key("b", b""))
    assert node.state.next_expiry_elapsed_ns() is None


def test_a_ttl_beyond_all_time_does_not_overflow() -> None:
    node = Cluster()
    node.apply(put_key("a", b"", ttl_seconds=(1 << 64) - 1), elapsed_ns=(1 << 64) - 1)
    node.checkpoint()
    node.restart()
    assert node.state.key("a") is not None


# Members


def test_a_cluster_is_founded_once() -> None:
    node = Cluster()
    members = [
        Member(MemberId(9), "node-2", 2, "pi-2.local:7441"),
        Member(MemberId(3), "node-1", 1, "pi-1.local:7441", is_voter=False),
    ]
    assert only(node, found_cluster(members)).verdict is Verdict.APPLIED
    assert node.state.members() == (members[1], members[0])
    refused(node, found_cluster(members), errors.ConditionFailed, "founded already with 2 members")
    node.checkpoint()
    node.restart()
    assert node.state.members() == (members[1], members[0])


# Effects


def test_effects_are_the_same_live_and_from_the_journal() -> None:
    node = Cluster()
    node.apply(put_key("old", b"", ttl_seconds=1), put_key("gone", b""))
    applied = node.apply(
        write([1], [1.0]),
        write([1], [1], integer=True),
        put_key("k", b"v", ttl_seconds=7),
        put_key("k", b"w", if_mod_revision=0),
        delete_key("gone"),
        delete_key("gone"),
        expire_keys([("k", 1), ("old", 1)]),
    )
    assert applied.outcome == EntryOutcome(
        3, (1, 3), (KeyChange(2, 0, 3, 3, 1), KeyChange(4, 0, 4), KeyChange(6, 1, 5))
    )
    live = effects(applied.command, applied.outcome)
    assert live.key_events == (
        KeyEvent(KeyEventKind.PUT, "k", 3, b"v", 3, 1, 7),
        KeyEvent(KeyEventKind.DELETE, "gone", 4),
        KeyEvent(KeyEventKind.EXPIRE, "old", 5),
    )
    assert [column.count for column in live.readings] == [1]
    for _ in range(2):
        assert effects(node.commands[3], node.state.outcome(3, node.store.reader())) == live
        node.checkpoint()
        node.restart()


def test_outcomes_go_when_the_log_is_trimmed() -> None:
    node = Cluster()
    for _ in range(3):
        node.apply(put_key("k", b""))
    node.apply(write([1], [1.0]))
    node.checkpoint()
    assert node.store.count("outcomes") == 3
    node.apply(put_key("k", b""))
    node.state.forget_outcomes_to(3)
    node.checkpoint()
    assert node.store.count("outcomes") == 2
    assert node.state.outcome(3, node.store.reader()).is_plain
    assert node.state.outcome(6, node.store.reader()).key_changes


def test_outcomes_forgotten_during_a_checkpoint_go_with_the_next() -> None:
    node = Cluster()
    node.apply(put_key("k", b""))
    work = node.state.capture_checkpoint()
    node.state.forget_outcomes_to(2)
    node.store.commit(work.batch(node.store.reader))
    node.state.checkpoint_done(work)
    assert node.store.count("outcomes") == 1
    node.checkpoint()
    assert node.store.count("outcomes") == 0


def test_equal_commands_have_equal_bytes() -> None:
    operations = [set_series("s", "m", unit="C", labels={"b": "1", "a": "2"})]
    once = encode_command(operations, time_unix_nano=1, elapsed_nano=2)
    assert command_pb2.Command.FromString(once).operations[0] == operations[0]
