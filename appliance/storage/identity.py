"""The identity record: who this data directory is, and where it belongs.

Layout: records.py's envelope (key "identity") around JSON with sorted keys, ids as 16 hex digits;
`format` is the format of the whole directory. Pure functions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from appliance.errors import CorruptData, WrittenByNewer
from appliance.model import ClusterId, Member, MemberId, hex_id
from appliance.storage.records import REBUILD_HINT, decode_record, encode_record

DIRECTORY_FORMAT: Final = 1

_KEY: Final = b"identity"
_WHERE: Final = "identity"


@dataclass(frozen=True, slots=True)
class Identity:
    """cluster_id is 0 and members is empty until the node has founded a cluster, or joined one.

    members: as last heard of, for dialling at the next start; members_version: of the configuration they are from,
    1 for the founders. What counts for votes and majorities is in the log and the store.
    superseded: the clusters it was of before `recover --force-new-cluster`, oldest first. outlived: clusters that a
    member of this one was made into while the others had a majority.
    """

    member_id: MemberId
    name: str
    machine: str
    cluster_id: ClusterId
    founders: tuple[str, ...]
    members: tuple[Member, ...]
    members_version: int = 1
    superseded: tuple[ClusterId, ...] = ()
    outlived: tuple[ClusterId, ...] = ()
    format: int = DIRECTORY_FORMAT


def encode_identity(identity: Identity) -> bytes:
    document: dict[str, Any] = {
        "format": identity.format,
        "member_id": hex_id(identity.member_id),
        "name": identity.name,
        "machine": identity.machine,
        "cluster_id": hex_id(identity.cluster_id),
        "founders": list(identity.founders),
        "members": [
            {
                "member_id": hex_id(member.member_id),
                "name": member.name,
                "number": member.number,
                "peer_address": member.peer_address,
                "is_voter": member.is_voter,
            }
            for member in identity.members
        ],
    }
    if identity.members_version != 1:
        document["members_version"] = identity.members_version
    for name, clusters in (("superseded", identity.superseded), ("outlived", identity.outlived)):
        if clusters:
            document[name] = list(map(hex_id, clusters))
    payload = json.dumps(document, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return encode_record(_KEY, payload.encode()) + b"\n"


def decode_identity(content: bytes) -> Identity:
    """Raises CorruptData, or WrittenByNewer."""
    payload = decode_record(_KEY, content.removesuffix(b"\n"), where=_WHERE)
    try:
        document: dict[str, Any] = json.loads(bytes(payload))
        directory_format = int(document["format"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptData(_WHERE, f"unreadable: {error}; {REBUILD_HINT}") from error
    if directory_format > DIRECTORY_FORMAT:
        raise WrittenByNewer(
            f"data directory has format {directory_format}, this version knows up to "
            f"{DIRECTORY_FORMAT}; start the version that wrote it, or a later one"
        )
    try:
        return Identity(
            member_id=MemberId(int(document["member_id"], 16)),
            name=document["name"],
            machine=document["machine"],
            cluster_id=ClusterId(int(document["cluster_id"], 16)),
            founders=tuple(document["founders"]),
            members=tuple(_member(fields) for fields in document["members"]),
            members_version=document.get("members_version", 1),
            superseded=_clusters(document.get("superseded", ())),
            outlived=_clusters(document.get("outlived", ())),
            format=directory_format,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptData(_WHERE, f"unreadable: {error!r}; {REBUILD_HINT}") from error


def _clusters(ids: Iterable[str]) -> tuple[ClusterId, ...]:
    return tuple(ClusterId(int(one, 16)) for one in ids)


def _member(fields: dict[str, Any]) -> Member:
    return Member(
        member_id=MemberId(int(fields["member_id"], 16)),
        name=fields["name"],
        number=fields["number"],
        peer_address=fields["peer_address"],
        is_voter=fields["is_voter"],
    )
