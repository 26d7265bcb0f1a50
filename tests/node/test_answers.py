"""Outcomes on their way to callers: in order, each once, none within the cycle that brought it."""

from __future__ import annotations

import asyncio

import pytest

from appliance.errors import NotApplied, Overloaded
from appliance.model import Verdict
from appliance.node import answers as answers_module
from appliance.node.answers import Answers, settle
from appliance.node.outcome import WriteOutcome
from appliance.node.proposals import Completion
from appliance.state import OperationResult


def applied(index: int) -> Completion:
    return Completion(None, OperationResult(Verdict.APPLIED, index), index, 1)


class Told:
    def __init__(self) -> None:
        self.answers = Answers(asyncio.get_running_loop())
        self.got: list[int | str] = []

    def tell(self, outcome: WriteOutcome | Exception) -> None:
        self.got.append(str(outcome) if isinstance(outcome, Exception) else outcome.index)


async def test_all_that_a_cycle_brought_is_told_behind_it_in_order() -> None:
    told = Told()
    for completion in (applied(7), Completion(NotApplied("refused")), applied(8)):
        told.answers.to(told.tell)(completion)
    assert told.got == []
    await asyncio.sleep(0)
    assert told.got == [7, "refused", 8]
    told.answers.to(told.tell)(applied(9))
    await asyncio.sleep(0)
    assert told.got == [7, "refused", 8, 9]


async def test_what_comes_while_callers_are_told_is_told_as_well() -> None:
    told = Told()

    def write_again(outcome: WriteOutcome | Exception) -> None:
        told.tell(outcome)
        told.answers.to(told.tell)(applied(2))

    told.answers.to(write_again)(applied(1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert told.got == [1, 2]


async def test_a_turn_ends_although_callers_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told()
    monkeypatch.setattr(answers_module, "TURN_NS", 0)
    for index in (1, 2):
        told.answers.to(told.tell)(applied(index))
    others: list[int] = []
    asyncio.get_running_loop().call_soon(lambda: others.append(len(told.got)))
    await asyncio.sleep(0)
    assert others == [1]
    await asyncio.sleep(0)
    assert told.got == [1, 2]


async def test_who_fails_to_listen_keeps_nobody_from_hearing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # To log a trace may take longer than a turn.
    monkeypatch.setattr(answers_module, "TURN_NS", 10**12)
    told = Told()

    def fail(_outcome: WriteOutcome | Exception) -> None:
        raise ValueError("a bug of a caller")

    told.answers.to(fail)(applied(1))
    told.answers.to(told.tell)(applied(2))
    await asyncio.sleep(0)
    assert told.got == [2]
    assert "a bug of a caller" in caplog.text


async def test_a_caller_who_has_left_is_not_told() -> None:
    loop = asyncio.get_running_loop()
    left: asyncio.Future[WriteOutcome] = loop.create_future()
    left.cancel()
    settle(left, Overloaded("late"))
    waiting: asyncio.Future[WriteOutcome] = loop.create_future()
    settle(waiting, Overloaded("refused"))
    with pytest.raises(Overloaded, match="refused"):
        await waiting
