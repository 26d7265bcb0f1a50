"""Who this node is, for as long as the process lives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from appliance.model import ClusterId, Member, MemberId


@dataclass(frozen=True, slots=True)
class Self:
    """Who this node is.

    members: whom it knew when it stopped, or was told of when it joined; members_version: of the configuration they
    are from, 1 for the founders. peer_address: where others reach it, as its options say now; empty: they don't say.
    told: addresses by name, as the options of this start say where founders are; the replicated ones may say otherwise.
    superseded: clusters that this node was of before it was made a new one. outlived: clusters that were made of this
    one while it had a majority, so that it goes on.
    """

    member_id: MemberId
    name: str
    cluster_id: ClusterId
    members: tuple[Member, ...]
    boot_nonce: int
    version: str
    members_version: int = 1
    peer_address: str = ""
    told: Mapping[str, str] = field(default_factory=dict)
    superseded: tuple[ClusterId, ...] = ()
    outlived: tuple[ClusterId, ...] = ()
