"""What the log weighs, roughly: enough to decide what to keep."""

from __future__ import annotations

from appliance.node.log_sizes import ENTRY_OVERHEAD, MARK_BYTES, LogSizes


def test_what_lay_in_the_log_at_start_is_not_counted_again_when_it_is_replayed() -> None:
    sizes = LogSizes(first_index=2, last_index=11, size_bytes=10 * MARK_BYTES)
    for index in range(7, 12):
        sizes.added(index, MARK_BYTES)
    assert sizes.total_bytes == 10 * MARK_BYTES
    sizes.added(12, MARK_BYTES)
    assert sizes.total_bytes == 11 * MARK_BYTES + ENTRY_OVERHEAD


def test_as_much_as_asked_for_stays() -> None:
    sizes = LogSizes(first_index=2, last_index=11, size_bytes=10 * MARK_BYTES)
    assert sizes.index_to_trim_to(11 * MARK_BYTES) == 0
    assert sizes.index_to_trim_to(4 * MARK_BYTES) == 7
    sizes.trimmed_to(7)
    assert sizes.total_bytes == 4 * MARK_BYTES
