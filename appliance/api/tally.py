"""How many calls ended, by method and status code: for the metrics.

Invariant: the keys are the methods that are served times gRPC's codes, so they are bounded. A stream is one call,
counted when it ends. Loop thread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from appliance.rpc import Call

Tally = Counter[tuple[str, str]]
"""(`Service/Method` without the package, code) to count."""


def counter_of(tally: Tally, methods: Iterable[str]) -> Callable[[Call], None]:
    """What a server tells of each call that ended; methods as they are called, `/package.Service/Method`."""
    names = {method: method.rpartition(".")[2] for method in methods}

    def count(call: Call) -> None:
        if (name := names.get(call.method)) is not None:
            tally[name, call.code().name] += 1

    return count
