"""gRPC's core as its Python package wraps it: the one place that names grpc._cython.

Why not grpc.aio: it makes a task, half a dozen futures and a write to a socket of every call. Measured with an empty
method and 64 clients it takes four times the CPU of the same core driven directly, and more than all that a write
costs us otherwise. grpc's own blocking server (grpc/_server.py) drives the core the way this package does; the
names are private to grpc, so grpcio is pinned and `tests/rpc/test_contract.py` fails on any other version.
"""

from __future__ import annotations

from typing import Any, Final

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]

VERSION: Final = "1.85.1"

NO_FLAGS: Final = 0
FOUND_NOTHING: Final[Any] = cygrpc.CompletionType.queue_timeout
SHUT_DOWN: Final[Any] = cygrpc.CompletionType.queue_shutdown
CODES: Final[dict[grpc.StatusCode, int]] = {code: code.value[0] for code in grpc.StatusCode}

CompletionQueue: Final[Any] = cygrpc.CompletionQueue
Server: Final[Any] = cygrpc.Server
ReceiveClose: Final[Any] = cygrpc.ReceiveCloseOnServerOperation
ReceiveMessage: Final[Any] = cygrpc.ReceiveMessageOperation
SendInitialMetadata: Final[Any] = cygrpc.SendInitialMetadataOperation
SendMessage: Final[Any] = cygrpc.SendMessageOperation
SendStatus: Final[Any] = cygrpc.SendStatusFromServerOperation
auth_context: Final[Any] = cygrpc.auth_context
