"""What the web port needs of the node and of those who compose it.

Every method is called on the loop thread and returns at once, unless it is async.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Protocol

from appliance.errors import Unauthenticated
from appliance.model import Position
from appliance.node.figures import Figures
from appliance.node.observing import Observer
from appliance.node.status import NodeStatus
from appliance.state import QueryChunk, QuerySpec, SeriesInfo, SeriesLatest


class QueryResult(Protocol):
    """A running query; aclose() gives its read transaction back."""

    def __aiter__(self) -> AsyncIterator[Sequence[QueryChunk]]: ...
    async def aclose(self) -> None: ...


class State(Protocol):
    @property
    def position(self) -> Position: ...
    @property
    def series_version(self) -> tuple[int, int]: ...
    def series_names(self) -> list[tuple[str, str]]: ...
    def latest(self, sensor: str, metric: str) -> Iterable[SeriesLatest]: ...
    def series(self, sensor: str, metric: str) -> Iterable[SeriesInfo]: ...


class Node(Protocol):
    """The running node, or one that stands by."""

    @property
    def name(self) -> str: ...
    @property
    def state(self) -> State: ...
    def status(self) -> NodeStatus: ...
    def figures(self) -> Figures: ...
    def is_serving(self) -> bool: ...
    async def query(self, spec: QuerySpec) -> QueryResult: ...


class Observing(Protocol):
    """What all nodes show of themselves; raises Overloaded when too many look."""

    def observe(self) -> Observer: ...
    def close(self) -> None: ...


class Access(Protocol):
    """Who may read what the web port shows. Health is for everybody."""

    @property
    def is_required(self) -> bool:
        """False: the cluster has no tokens, and whoever reaches the port may read."""

    def reader(self, token: str) -> str:
        """The name of the token's owner, if it may read status and readings; asked at every request.

        Raises Unauthenticated and PermissionDenied with the reason, and RateLimited.
        """

    def is_reader(self, token: str) -> bool:
        """Whether it may, without counting as a request: for what is open already."""


class OpenAccess:
    """No tokens: the configuration lets such a node listen on loopback only, or was told --insecure."""

    is_required = False

    def reader(self, token: str) -> str:
        raise Unauthenticated("this cluster has no tokens: nobody needs to log in")

    def is_reader(self, token: str) -> bool:
        return False


class Resources(Protocol):
    """host.resources.Resources, by its fields."""

    @property
    def memory_bytes(self) -> int | None: ...
    @property
    def written_bytes(self) -> int | None: ...
    @property
    def disk_free_bytes(self) -> int | None: ...
    @property
    def disk_size_bytes(self) -> int | None: ...
    @property
    def cpu_seconds(self) -> float: ...
    @property
    def load_1m(self) -> float | None: ...
    @property
    def clock_synchronized(self) -> bool | None: ...


class Facts(Protocol):
    """What others on floor 5 know, handed in by app.py."""

    def resources(self) -> Resources: ...

    def request_counts(self) -> Mapping[tuple[str, str], int]:
        """Calls at the client port by (method, code), since the start."""

    def certificates(self) -> Mapping[str, float]:
        """Name of each certificate in use to its end, in seconds since 1970; empty without TLS."""


def describe(status: NodeStatus, facts: Facts) -> dict[str, Any]:
    """A node for the page: every field of its status by name, then `resources` and `certificates`."""
    found = {name: getattr(status, name) for name in NodeStatus.__slots__}
    found["role"] = status.role.value
    found["peers"] = [{name: getattr(peer, name) for name in type(peer).__slots__} for peer in status.peers]
    resources = facts.resources()
    found["resources"] = {name: getattr(resources, name) for name in _RESOURCES}
    found["certificates"] = dict(facts.certificates())
    return found


_RESOURCES = (
    "memory_bytes", "written_bytes", "disk_free_bytes", "disk_size_bytes", "cpu_seconds", "load_1m",
    "clock_synchronized",
)  # fmt: skip
