"""Founding over real loopback sockets."""

from __future__ import annotations

import asyncio
import logging
import random

import pytest

from appliance.errors import DataDirectoryRefused
from appliance.model import MemberId
from appliance.peers import Founder, Founding, FoundingDesk, PeerServer, found_cluster

NAMES = ("node-1", "node-2", "node-3")


class Site:
    """One founder: its port is served from the start, as in a real node."""

    def __init__(self, name: str, member_id: int) -> None:
        self.name = name
        self.member_id = MemberId(member_id)
        self.desk = FoundingDesk(name, self.member_id, NAMES)
        self.server = PeerServer("127.0.0.1:0", self.desk.answer)

    async def found(self, addresses: dict[str, str]) -> Founding:
        own = Founder(name=self.name, member_id=self.member_id, addresses=addresses)
        return await found_cluster(own, self.desk, rng=random.Random(self.member_id))


async def _served() -> tuple[list[Site], dict[str, str]]:
    sites = [Site(name, number) for number, name in enumerate(NAMES, start=1)]
    for site in sites:
        await site.server.start()
    return sites, {site.name: f"127.0.0.1:{site.server.port}" for site in sites}


async def test_three_founders_found_one_cluster() -> None:
    sites, addresses = await _served()
    foundings = await asyncio.gather(*(site.found(addresses) for site in sites))
    assert len(set(foundings)) == 1
    assert [member.number for member in foundings[0].members] == [1, 2, 3]
    for site in sites:
        await site.server.stop()


async def test_a_founder_waits_for_the_one_that_is_missing_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sites, addresses = await _served()
    await sites[2].server.stop()
    with caplog.at_level(logging.INFO):
        task = asyncio.create_task(sites[0].found(addresses))
        async with asyncio.timeout(60):
            while "waiting for" not in caplog.text:
                await asyncio.sleep(0.01)
        late = PeerServer(addresses["node-3"], sites[2].desk.answer)
        await late.start()
        founding = await task
    assert len(founding.members) == 3
    assert caplog.text.count(f"waiting for node-3 at {addresses['node-3']}") == 1
    for server in (sites[0].server, sites[1].server, late):
        await server.stop()


async def test_a_founder_that_comes_back_empty_is_refused_and_one_that_kept_its_id_is_not() -> None:
    sites, addresses = await _served()
    founding = await sites[0].found(addresses)
    sites[0].desk.joined(founding.cluster_id, founding.members)
    assert await sites[1].found(addresses) == founding
    wiped = Site("node-2", 99)
    with pytest.raises(DataDirectoryRefused, match="node-1 knows the cluster"):
        await wiped.found(addresses)
    # One peer that has joined is enough: the other founder may be down.
    await sites[2].server.stop()
    assert await sites[1].found(addresses) == founding
    for site in sites[:2]:
        await site.server.stop()
