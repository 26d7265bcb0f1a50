"""The rules of membership: what a change makes of a configuration, and the bytes a configuration is kept in."""

from __future__ import annotations

from dataclasses import replace

import pytest

from appliance.errors import ConditionFailed, CorruptData, DataDirectoryRefused, Fatal, NotFound, Overloaded
from appliance.limits import MEMBERS_MAX, REMOVED_MEMBERS_MAX, VOTERS_MAX
from appliance.model import Configuration, Member, MemberId
from appliance.state import StateMachine
from appliance.state.configuration import (
    decode_configuration,
    decode_record,
    encode_configuration,
    encode_record,
    founding_configuration,
)
from appliance.state.membership import (
    AddLearner,
    Change,
    PromoteMember,
    RemoveMember,
    UpdateMember,
    find_member,
    next_configuration,
)
from appliance.state.operations import encode_command, found_cluster
from appliance.storage.memory import MemoryDisk, MemoryStore


def member(number: int, *, is_voter: bool = True) -> Member:
    return Member(MemberId(number), f"pi-{number}", number, f"pi-{number}.local:7441", is_voter)


def cluster(*numbers: int) -> Configuration:
    return founding_configuration(map(member, numbers))


def after(current: Configuration, *changes: Change) -> Configuration:
    for change in changes:
        current = next_configuration(current, change)
    return current


ADD_4 = AddLearner(MemberId(4), "pi-4", "pi-4.local:7441")


def test_a_newcomer_is_a_learner_with_the_next_number() -> None:
    changed = after(cluster(1, 2, 3), ADD_4)
    assert changed.version == 2
    assert changed.voters == (1, 2, 3)
    assert changed.learners == (4,)
    assert changed.member(MemberId(4)) == Member(MemberId(4), "pi-4", 4, "pi-4.local:7441", False, True)


def test_a_number_is_never_given_twice() -> None:
    changed = after(
        cluster(1, 2, 3), RemoveMember(MemberId(3)), AddLearner(MemberId(9), "pi-3", "pi-3.local:7441")
    )
    assert [(m.member_id, m.name, m.number) for m in changed.members] == [
        (1, "pi-1", 1), (2, "pi-2", 2), (9, "pi-3", 4),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        ADD_4,
        RemoveMember(MemberId(2)),
        PromoteMember(MemberId(5)),
        UpdateMember(MemberId(1), "10.0.0.9:7441"),
    ],
)
def test_a_change_asked_for_again_is_done_already(change: Change) -> None:
    begun = after(cluster(1, 2, 3), AddLearner(MemberId(5), "pi-5", "pi-5.local:7441"))
    changed = after(begun, change)
    assert changed.version == begun.version + 1
    assert next_configuration(changed, change) is changed


def test_a_change_concerns_one_member_and_at_most_one_vote() -> None:
    begun = after(cluster(1, 2, 3), AddLearner(MemberId(5), "pi-5", "pi-5.local:7441"))
    for change in (
        ADD_4,
        RemoveMember(MemberId(2)),
        PromoteMember(MemberId(5)),
        UpdateMember(MemberId(1), "x:1"),
    ):
        changed = after(begun, change)
        assert (
            len(set(changed.members) - set(begun.members)) + len(set(begun.members) - set(changed.members))
            <= 2
        )
        assert len(set(changed.voters) ^ set(begun.voters)) <= 1


def test_a_removed_id_never_comes_back_and_its_name_may() -> None:
    changed = after(cluster(1, 2, 3), RemoveMember(MemberId(3)))
    with pytest.raises(ConditionFailed, match="a removed id never comes back: empty its data directory"):
        after(changed, AddLearner(MemberId(3), "pi-3", "pi-3.local:7441"))
    assert after(changed, AddLearner(MemberId(33), "pi-3", "pi-3.local:7441")).learners == (33,)


def test_a_name_in_use_is_refused_with_the_way_to_replace_a_board() -> None:
    with pytest.raises(ConditionFailed, match=r"remove it first \(raftberry members remove pi-3\)"):
        after(cluster(1, 2, 3), AddLearner(MemberId(33), "pi-3", "pi-3.local:7441"))
    with pytest.raises(ConditionFailed, match="is a member already, as pi-3, not pi-4"):
        after(cluster(1, 2, 3), AddLearner(MemberId(3), "pi-4", "pi-4.local:7441"))


def test_the_last_voter_stays() -> None:
    alone = after(cluster(1, 2), RemoveMember(MemberId(2)))
    with pytest.raises(ConditionFailed, match="pi-1 is the last voter"):
        after(alone, RemoveMember(MemberId(1)))
    with pytest.raises(ConditionFailed, match="pi-1 is the last voter"):
        after(alone, ADD_4, RemoveMember(MemberId(1)))


def test_a_stranger_is_neither_removed_nor_promoted_nor_moved() -> None:
    for change in (RemoveMember(MemberId(9)), PromoteMember(MemberId(9)), UpdateMember(MemberId(9), "x:1")):
        with pytest.raises(NotFound, match="0000000000000009 is no member"):
            after(cluster(1, 2, 3), change)


def test_members_voters_and_removed_ids_are_bounded() -> None:
    full = cluster(*range(1, MEMBERS_MAX))
    with pytest.raises(Overloaded, match=f"{MEMBERS_MAX} members"):
        after(full, AddLearner(MemberId(100), "a", "a:1"), AddLearner(MemberId(101), "b", "b:1"))
    voters = after(cluster(*range(1, VOTERS_MAX + 1)), AddLearner(MemberId(100), "a", "a:1"))
    with pytest.raises(Overloaded, match=f"{VOTERS_MAX} voters"):
        after(voters, PromoteMember(MemberId(100)))
    current = cluster(1, 2)
    for number in range(100, 100 + REMOVED_MEMBERS_MAX + 1):
        current = after(current, AddLearner(MemberId(number), "x", "x:1"), RemoveMember(MemberId(number)))
    assert len(current.removed) == REMOVED_MEMBERS_MAX
    assert current.removed[-1] == 100 + REMOVED_MEMBERS_MAX


def test_a_member_is_found_by_name_number_or_id() -> None:
    configuration = cluster(1, 2)
    for text in ("pi-2", "2", "0000000000000002"):
        assert find_member(configuration, text).member_id == 2
    with pytest.raises(NotFound, match="pi-9 is no member of this cluster; its members are pi-1, pi-2"):
        find_member(configuration, "pi-9")


GOLDEN_MEMBERS = (Member(MemberId(7), "n", 2, "h:1"), Member(MemberId(8), "l", 3, "h:2", False, True))
GOLDEN = Configuration(3, GOLDEN_MEMBERS, (MemberId(5),), 3)


def test_an_entry_has_golden_bytes() -> None:
    golden = (
        "02 0801 1003 1a15 09 0700000000000000 12 01 6e 18 02 22 03 683a31 28 01"
        "1a15 09 0800000000000000 12 01 6c 18 03 22 03 683a32 30 01 22 08 0500000000000000 28 03"
    )
    assert encode_configuration(GOLDEN).hex() == golden.replace(" ", "")
    assert decode_configuration(9, bytes.fromhex(golden)) == replace(GOLDEN, index=9)


def test_an_entry_that_can_not_be_read_ends_the_process() -> None:
    with pytest.raises(Fatal, match=r"log entry 9 .* is no configuration"):
        decode_configuration(9, b"\2\xff")
    with pytest.raises(Fatal, match="configuration format 0, this version knows 1"):
        decode_configuration(9, b"\2")


def test_a_record_has_golden_bytes() -> None:
    record = encode_record(replace(GOLDEN, index=9))
    assert record.hex() == "01" + "".join(f"{number:016x}" for number in (3, 9, 3, 5))
    assert decode_record(record, GOLDEN.members) == replace(GOLDEN, index=9)
    assert decode_record(None, ()) == Configuration()
    with pytest.raises(CorruptData, match="store meta configuration"):
        decode_record(record[:-1], ())
    with pytest.raises(DataDirectoryRefused, match="newer"):
        decode_record(b"\2" + record[1:], ())


def test_a_removed_member_leaves_the_checkpoint_too() -> None:
    state, store = StateMachine(), MemoryStore(MemoryDisk())
    state.apply(
        2, 1, encode_command([found_cluster(cluster(1, 2, 3).members)], time_unix_nano=0, elapsed_nano=0)
    )
    assert state.configuration == replace(cluster(1, 2, 3), index=2)
    configuration = state.configuration
    for index, change in enumerate((ADD_4, RemoveMember(MemberId(3))), start=3):
        work = state.capture_checkpoint()
        store.commit(work.batch(store.snapshot))
        state.checkpoint_done(work)
        configuration = replace(next_configuration(configuration, change), index=index)
        state.apply_configuration(index, 1, configuration)
    work = state.capture_checkpoint()
    store.commit(work.batch(store.snapshot))
    state.checkpoint_done(work)
    with store.snapshot() as reader:
        restored = StateMachine.restore(reader)
    assert restored.configuration == configuration
    assert [one.member_id for one in restored.members()] == [1, 2, 4]
    assert restored.hash(store.snapshot()) == state.hash(store.snapshot())
