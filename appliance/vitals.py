"""What the machine tells a running node every few seconds: bytes written, room on its disk, the card's own life.

Reads small files of /proc and /sys in a thread, because statvfs(2) may wait for a disk. Called by app.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from appliance.host.memory import give_back
from appliance.host.resources import card_life_used_percent, read_resources
from appliance.limits import MIB
from appliance.node.core import NodeCore

EVERY_S: Final = 5.0
GROWTH_BYTES: Final = 16 * MIB
"""Of memory since free memory was last given back to the system: then it is done again."""


@contextmanager
def watching_disk(core: NodeCore, data: Path) -> Iterator[None]:
    task = asyncio.create_task(_watch(core, data), name="vitals")
    try:
        yield
    finally:
        task.cancel()


async def _watch(core: NodeCore, data: Path) -> None:
    floor_bytes = 0
    while True:
        memory_bytes = await observe(core, data)
        if memory_bytes > floor_bytes + GROWTH_BYTES:
            floor_bytes = await asyncio.get_running_loop().run_in_executor(None, _give_back, data)
        floor_bytes = min(floor_bytes, memory_bytes)
        await asyncio.sleep(EVERY_S)


def _give_back(data: Path) -> int:
    give_back()
    return read_resources(data).memory_bytes or 0


async def observe(core: NodeCore, data: Path) -> int:
    """Once; a figure that cannot be had leaves the last one. Returns what memory is in use, 0: not known."""
    loop = asyncio.get_running_loop()
    found = await loop.run_in_executor(None, read_resources, data)
    life = await loop.run_in_executor(None, card_life_used_percent, data)
    house = core.housekeeping
    house.disk_has(found.disk_free_bytes)
    house.budget.card_life_used_percent = life or 0
    if found.written_bytes is not None:
        house.budget.observe(found.written_bytes, core.pipeline.durations.count)
    return found.memory_bytes or 0
