"""What the package relies on of grpc's private parts: on another version each of these has to be looked at again."""

from __future__ import annotations

import grpc

from appliance.rpc import core


def test_grpcio_is_the_version_that_was_read() -> None:
    assert grpc.__version__ == core.VERSION


def test_a_queue_that_holds_nothing_says_so_at_once() -> None:
    queue = core.CompletionQueue()
    assert queue.poll(0).completion_type == core.FOUND_NOTHING
    queue.shutdown()
    assert queue.poll(0).completion_type == core.SHUT_DOWN


def test_every_code_has_its_number_of_the_wire() -> None:
    assert core.CODES[grpc.StatusCode.OK] == 0
    assert core.CODES[grpc.StatusCode.UNAUTHENTICATED] == 16
