"""Who this node is, for as long as the process lives."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.model import ClusterId, Member, MemberId


@dataclass(frozen=True, slots=True)
class Self:
    """Who this node is."""

    member_id: MemberId
    name: str
    cluster_id: ClusterId
    members: tuple[Member, ...]
    boot_nonce: int
    version: str
