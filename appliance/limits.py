"""Every bound, with its unit and its reason. Relations between bounds are asserted at the end.

Bounds an operator may set are defaults here and options of the floor that uses them.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30

NAME_BYTES_MAX: Final = 200
"""Sensor, metric, key, producer: fits an LMDB key (511 bytes) with its prefix."""

MESSAGE_BYTES_MAX: Final = 4 * MIB
"""One gRPC message from a client: gRPC's own default."""

READINGS_PER_REQUEST_MAX: Final = 200_000
"""Keeps one request below a message, and the loop free (decoding 200,000 columns takes about 1 ms)."""

SERIES_PER_REQUEST_MAX: Final = 10_000
"""Each costs a dictionary look-up and a header."""

VALUE_BYTES_MAX: Final = 256 * KIB
"""Value of a key: the map is for settings, not for files."""

KEYS_MAX: Final = 100_000
"""Keys live in memory."""

KEY_VALUE_BYTES_MAX: Final = 64 * MIB
"""Sum of keys and values: they live in memory."""

SERIES_MAX: Final = 100_000
"""Heads live in memory: some 1.5 KiB each."""

POLICIES_MAX: Final = 1_000
"""Each is looked at once for each series."""

ROLL_UPS_MAX: Final = 4
"""Widths of one policy; each makes four series of one."""

ROLL_UP_WIDTH_MIN_NS: Final = 1_000_000_000
ROLL_UP_WIDTH_MAX_NS: Final = 366 * 86_400 * 1_000_000_000
KEEP_MIN_NS: Final = 60_000_000_000
"""Below a minute a clock's error would decide."""

LABELS_MAX: Final = 32
LABEL_BYTES_MAX: Final = 200
UNIT_BYTES_MAX: Final = 40

PRODUCERS_MAX: Final = 10_000
"""Beyond it the producer that was silent longest is forgotten: a retry after that may apply twice."""

PRODUCER_WINDOW: Final = 1_024
"""Sequences below a producer's highest that are still told apart."""

STREAM_IN_FLIGHT_MAX: Final = 256
"""Requests of one StreamWrite that wait for their outcome; far below the producers' window."""

ENTRY_BYTES_MAX: Final = 8 * MIB
"""One log entry; PySyncObj's batch size must exceed it (H12)."""

ENTRY_OPERATIONS_MAX: Final = 4_096
"""Operations of one entry: bounds the time one apply holds the loop."""

BATCH_BYTES_TARGET: Final = 1 * MIB
"""A batch is closed at this size, so that entries stay small beside ENTRY_BYTES_MAX."""

PROPOSALS_PENDING_MAX: Final = 20_000
"""Operations accepted here that wait for an outcome; beyond it RESOURCE_EXHAUSTED."""

PROPOSALS_PENDING_BYTES_MAX: Final = 64 * MIB
"""Their size; beyond it RESOURCE_EXHAUSTED."""

PEER_IN_FLIGHT_BYTES_MAX: Final = 4 * MIB
"""Frames sent to a peer that it has not taken yet."""

SNAPSHOT_CHUNK_BYTES: Final = 256 * KIB

LOG_HOT_BYTES_MAX: Final = 16 * MIB
"""Log entries kept in memory for followers; older ones are read from the journal."""

LOG_SLICE_ENTRIES_MAX: Final = 1_024
LOG_SLICE_BYTES_MAX: Final = 1 * MIB
"""What one read of the log returns at most, so that no slice of a long log is ever built."""

APPLY_BYTES_MAX: Final = 32 * KIB
"""Of what is in committed entries one turn of the loop applies so much: some 600 single readings, 3 ms; or ten
thousand in columns. One entry is applied whole."""

WATCH_QUEUE_BYTES_MAX: Final = 4 * MIB
"""Applied entries held for watchers in memory; a slower watcher reads from the journal."""

WATCHERS_MAX: Final = 2_000

SCANS_MAX: Final = 32
"""Queries that run or wait for their client, beside a backup: each keeps a read transaction open and some chunks in
memory."""

LISTED_SERIES_MAX: Final = 4 * SERIES_MAX
"""Of all reads of latest readings, lists and queries together: some 200 bytes each, captured before the first is sent
and held until the client has taken them."""

STREAM_STALL_S_MAX: Final = 30.0
"""A read whose client takes nothing for so long is ended: as long as it lasts, no page that the store frees is used
again, and the store grows."""

PAGE_BYTES: Final = 4 * KIB
"""Of LMDB on most kernels; it takes the system's own."""

BLOCK_RECORD_OVERHEAD: Final = 16 + 5
"""What LMDB's page header and the record's envelope add to a block that fills pages of its own."""

BLOCK_READINGS_MAX: Final = 32_768
"""Of one chunk of a block: bounds what is decoded at once where readings compress to almost nothing."""

ENCODE_READINGS_MIN: Final = 64
"""Batches of a series from here on are encoded where they enter."""

MEMBERS_MAX: Final = 16
"""Voters and learners: each is sent every entry, and its address travels in every hello."""

VOTERS_MAX: Final = 9
"""Four of them may fail; more only make every write wait for more cards."""

SUPERSEDED_MAX: Final = 16
"""Clusters that a node was of, or that were made of its own: a majority is lost once in years."""

OUTLIVED_AFTER_NS: Final = 60_000_000_000
"""A cluster that has worked this long in the life of a node is not ended by the word of one member that left it; if
shorter, the node may be one of a lost majority that has just come back."""

REMOVED_MEMBERS_MAX: Final = 256
"""Ids that are remembered as removed; an older one that comes back is a stranger, and refused as one."""

TOKENS_MAX: Final = 1_000
"""They live in memory, each with a bucket for its rate."""

SCOPES_MAX: Final = 32
"""Globs of one kind on one token: each is tried for each new series."""

INVITES_MAX: Final = 100
"""Open at the same time."""

INVITE_USES_MAX: Final = 100
"""Nodes that one invite lets in: it remembers each."""

EVENTS_KEPT: Final = 4_096
"""Consensus events a node remembers for WatchEvents."""

CLOCK_EARLIEST_UNIX_NANO: Final = 1_735_689_600_000_000_000
"""2025-01-01: a wall clock below it has not been set."""

assert STREAM_IN_FLIGHT_MAX * 2 <= PRODUCER_WINDOW
assert MESSAGE_BYTES_MAX + BATCH_BYTES_TARGET <= ENTRY_BYTES_MAX
assert LOG_SLICE_BYTES_MAX < PEER_IN_FLIGHT_BYTES_MAX
assert SNAPSHOT_CHUNK_BYTES < PEER_IN_FLIGHT_BYTES_MAX
assert SERIES_MAX <= LISTED_SERIES_MAX, "a read of all series must find room"
