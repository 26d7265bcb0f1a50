"""A production function with one fragment of its text exchanged, for as long as a test or a run lasts.

Invariant: the fragment stands in the function exactly once, else the mutation raises: it can't go stale in silence.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from types import ModuleType
from typing import Any, Protocol


class Patch(Protocol):
    """pytest.MonkeyPatch, or what a run outside of pytest uses in its place."""

    def setattr(self, target: Any, name: str, value: Any) -> None: ...


def mutate(patch: Patch, owner: type | ModuleType, name: str, old: str, new: str) -> None:
    """Put new in the place of old in owner's function or property of that name."""
    found = inspect.getattr_static(owner, name)
    function: Any = found.fget if isinstance(found, property) else found
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1, f"{name} holds {source.count(old)} times: {old}"
    module = owner if isinstance(owner, ModuleType) else sys.modules[owner.__module__]
    changed: dict[str, Any] = {}
    code = compile(source.replace(old, new), f"<{name} with a mutation>", "exec", dont_inherit=True)
    exec(code, vars(module), changed)
    patch.setattr(owner, name, changed[name])
