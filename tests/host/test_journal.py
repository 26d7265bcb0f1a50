"""Log lines as journald gets them."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from appliance.host import journal
from appliance.host.journal import (
    FIELDS_MAX,
    JournalHandler,
    fields_of,
    is_journal,
    syslog_priority,
)


def record_of(message: str, *args: object, level: int = logging.INFO) -> logging.LogRecord:
    return logging.LogRecord("appliance.app", level, "app.py", 7, message, args, None, func="serve")


def test_pairs_of_a_line_become_fields() -> None:
    fields = fields_of(record_of("became_leader term=%d index=%d peer_name=pi-2", 4, 17))
    assert fields["RAFTBERRY_EVENT"] == "became_leader"
    assert (fields["RAFTBERRY_TERM"], fields["RAFTBERRY_INDEX"]) == ("4", "17")
    assert fields["RAFTBERRY_PEER_NAME"] == "pi-2"
    assert fields["LOGGER"] == "appliance.app"


def test_a_line_without_pairs_has_no_field_of_ours() -> None:
    assert not any(name.startswith("RAFTBERRY_") for name in fields_of(record_of("stopping, B=1 or 2=3")))


def test_fields_of_a_line_are_bounded() -> None:
    line = "many " + " ".join(f"k{number}=1" for number in range(FIELDS_MAX + 5))
    ours = [name for name in fields_of(record_of(line)) if name.startswith("RAFTBERRY_K")]
    assert len(ours) == FIELDS_MAX


@pytest.mark.parametrize(
    ("level", "priority"),
    [
        (logging.DEBUG, 7),
        (logging.INFO, 6),
        (logging.WARNING, 4),
        (logging.ERROR, 3),
        (logging.CRITICAL, 2),
        (99, 2),
    ],
)
def test_levels_are_syslog_priorities(level: int, priority: int) -> None:
    assert syslog_priority(level) == priority


def test_every_field_is_one_that_the_bindings_take() -> None:
    sent: list[dict[str, object]] = []
    handler = JournalHandler(lambda message, **fields: sent.append({"MESSAGE": message, **fields}))
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.handle(record_of("committed term=2"))
    assert sent[0]["MESSAGE"] == "committed term=2"
    # The bindings format this one as a number.
    assert sent[0]["CODE_LINE"] == 7


def test_a_journal_that_fails_does_not_fail_the_caller(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*_args: object, **_fields: object) -> None:
        raise OSError("no journald")

    JournalHandler(fail).handle(record_of("committed term=2"))
    assert "no journald" in capsys.readouterr().err


def test_only_a_descriptor_that_systemd_connected_is_the_journal(tmp_path: Path) -> None:
    with (tmp_path / "stream").open("w") as stream:
        found = os.fstat(stream.fileno())
        named = {journal.STREAM_VARIABLE: f"{found.st_dev}:{found.st_ino}"}
        assert is_journal(named, stream.fileno())
        assert not is_journal(
            {journal.STREAM_VARIABLE: f"{found.st_dev}:{found.st_ino + 1}"}, stream.fileno()
        )
        assert not is_journal({}, stream.fileno())
        assert not is_journal({journal.STREAM_VARIABLE: "8:x"}, stream.fileno())
