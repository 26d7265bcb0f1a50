"""Where work that touches the disk is done, away from the loop.

Invariant: writes are done one after the other in the order given, each `done` is called on the loop thread in the
same order, and an exception in `work` never reaches `done`. It is raised on the loop, within `guarded`, as one in
`done` is: the node decides there between quarantine and its end.
The simulator brings its own `Workers`.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol, TypeVar

from appliance.errors import CorruptData, Quarantined
from appliance.node.failpoints import Failpoints

Result = TypeVar("Result")


class Workers(Protocol):
    def write(self, name: str, work: Callable[[], Result], done: Callable[[Result], None]) -> None:
        """On the committer's thread; name is for failpoints and messages (`journal`, `store`, `install`)."""

    def read(self, work: Callable[[], Result], done: Callable[[Result], None]) -> None:
        """In the pool of readers; no order."""


class ThreadWorkers:
    """One committer thread, a small pool for reads."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_fatal: Callable[[BaseException], None],
        failpoints: Failpoints | None = None,
    ) -> None:
        self._loop, self._on_fatal, self._failpoints = loop, on_fatal, failpoints
        self.guarded: Callable[[Callable[[], None]], None] = self._end_if_it_fails
        """Runs what came back, on the loop; the node puts its own here."""

        self._jobs: queue.SimpleQueue[tuple[Callable[[], object], Callable[..., None]] | None] = (
            queue.SimpleQueue()
        )
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)
        self._thread.start()
        self.pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="reader")

    def write(self, name: str, work: Callable[[], Result], done: Callable[[Result], None]) -> None:
        self._jobs.put(
            (work if self._failpoints is None else self._deadly(name, work, self._failpoints), done)
        )

    def read(self, work: Callable[[], Result], done: Callable[[Result], None]) -> None:
        self.pool.submit(self._execute, work, done)

    async def in_pool(self, work: Callable[[], Result]) -> Result:
        """For a caller who waits for it. Damage is told to the node, and to the caller as Quarantined."""
        try:
            return await self._loop.run_in_executor(self.pool, work)
        except CorruptData as error:
            self.guarded(partial(_raise, error))
            raise Quarantined(str(error)) from error

    def stop(self) -> None:
        """Finish what was given, then end the threads."""
        self._jobs.put(None)
        self._thread.join()
        self.pool.shutdown()

    def _deadly(self, name: str, work: Callable[[], Result], failpoints: Failpoints) -> Callable[[], Result]:
        def passing() -> Result:
            failpoints.pass_by(f"{name}.before_commit")
            result = work()
            failpoints.pass_by(f"{name}.after_commit")
            return result

        return passing

    def _run(self) -> None:
        while self._do_next():
            pass

    def _do_next(self) -> bool:
        """In a frame of its own: a checkpoint's megabytes must not stay until there is another job."""
        job = self._jobs.get()
        if job is not None:
            self._execute(*job)
        return job is not None

    def _execute(self, work: Callable[[], object], done: Callable[..., None]) -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - the top of a thread: whatever it is, the node must not go on
            self._post(partial(_raise, error))
            return
        self._post(partial(done, result))

    def _post(self, call: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(lambda: self.guarded(call))
        except RuntimeError:  # the loop is closed: nobody waits for the result any more
            return

    def _end_if_it_fails(self, call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - the top of a callback
            self._on_fatal(error)


def _raise(error: BaseException) -> None:
    raise error
