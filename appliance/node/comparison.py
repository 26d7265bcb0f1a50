"""What `verify` says: the hashes of all members at one entry, side by side. Loop thread."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from appliance.model import Position
from appliance.node.core import NodeCore

SECOND_NS = 1_000_000_000
WAIT_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Comparison:
    """own: this node's hash; hashes: (name, hash) of each member in order of name, b"" of one that did not answer."""

    position: Position
    own: bytes
    hashes: tuple[tuple[str, bytes], ...]

    @property
    def is_equal(self) -> bool:
        """All answered, and the same."""
        return {digest for _, digest in self.hashes} == {self.own} and bool(self.own)


async def compare_states(core: NodeCore, position: Position, deadline_ns: int) -> Comparison:
    """Wait for the hashes at position of this node and its connected peers, but leave time to answer the caller."""
    found, arrived = core.verification.round(position.index), asyncio.Event()

    def listen(_: int) -> None:
        arrived.set()

    core.verification.listeners.append(listen)
    try:
        remaining_s = max(0.0, (deadline_ns - core.clock.monotonic_ns()) / SECOND_NS)
        async with asyncio.timeout(remaining_s * WAIT_SHARE):
            while not {core.me.member_id, *core.engine.connected} <= set(found.hashes):
                arrived.clear()
                await arrived.wait()
                found = core.verification.round(position.index)
    except TimeoutError:
        # Who has not answered is named by having no hash.
        found = core.verification.round(position.index)
    finally:
        core.verification.listeners.remove(listen)
    named = {member.name: found.hashes.get(member_id, b"") for member_id, member in core.members.items()}
    return Comparison(position, found.hashes.get(core.me.member_id, b""), tuple(sorted(named.items())))
