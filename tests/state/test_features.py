"""Feature levels in the replicated state: versions that are mixed never read an entry differently."""

from __future__ import annotations

import pytest

from appliance import features
from appliance.errors import DataDirectoryRefused, Fatal
from appliance.state import StateMachine, StateOptions
from appliance.state.layouts import decode_features, encode_features
from appliance.state.operations import encode_command
from appliance.storage.memory import MemoryDisk, MemoryStore
from raftberry.internal.v1 import command_pb2

LATER = StateOptions(feature_level_max=features.LEVEL + 1)
"""A version after this one."""


def raise_to(level: int) -> bytes:
    operation = command_pb2.Operation(raise_feature_level=command_pb2.RaiseFeatureLevel(level=level))
    return encode_command([operation], time_unix_nano=1, elapsed_nano=1)


def checkpointed(state: StateMachine) -> MemoryStore:
    store = MemoryStore(MemoryDisk())
    work = state.capture_checkpoint()
    store.commit(work.batch(store.snapshot))
    state.checkpoint_done(work)
    return store


def test_a_cluster_is_born_with_the_first_level() -> None:
    assert StateMachine().feature_level == features.FIRST


def test_a_level_rises_by_an_entry_and_survives_a_checkpoint() -> None:
    state = StateMachine(LATER)
    state.apply(2, 1, raise_to(features.LEVEL + 1))
    assert state.feature_level == features.LEVEL + 1
    with checkpointed(state).snapshot() as reader:
        assert StateMachine.restore(reader, LATER).feature_level == features.LEVEL + 1


def test_a_level_never_falls() -> None:
    state = StateMachine(LATER)
    state.apply(2, 1, raise_to(features.LEVEL + 1))
    state.apply(3, 1, raise_to(features.FIRST))
    assert state.feature_level == features.LEVEL + 1


def test_a_version_that_does_not_know_the_level_stops_at_the_entry() -> None:
    with pytest.raises(Fatal, match=r"log entry 2 needs a later version of Raftberry.*nothing is lost"):
        StateMachine().apply(2, 1, raise_to(features.LEVEL + 1))


def test_a_version_that_does_not_know_the_level_refuses_the_checkpoint() -> None:
    state = StateMachine(LATER)
    state.apply(2, 1, raise_to(features.LEVEL + 1))
    with (
        checkpointed(state).snapshot() as reader,
        pytest.raises(DataDirectoryRefused, match="install the version of the other nodes"),
    ):
        StateMachine.restore(reader)


def test_a_kind_of_operation_from_the_future_is_never_passed_over() -> None:
    """Field 1,000 of Operation, a message: an older version must not call it empty and go on."""
    operation = command_pb2.Operation.FromString(b"\xc2\x3e\x00")
    with pytest.raises(Fatal, match="needs a later version"):
        StateMachine().apply(2, 1, encode_command([operation], time_unix_nano=1, elapsed_nano=1))


def test_the_level_has_golden_bytes() -> None:
    assert encode_features(2).hex() == "010002"
    assert decode_features(encode_features(2)) == 2
