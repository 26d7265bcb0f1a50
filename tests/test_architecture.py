"""Holds the house of ARCHITECTURE.md against the code, by its syntax tree: floors, borders, sizes."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HOUSE = ROOT / "appliance"

MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70

FLOOR = {
    "__init__": 0, "model": 0, "limits": 0, "errors": 0, "clock": 0, "units": 0, "features": 0, "addresses": 0,
    "storage": 1,
    "state": 2,
    "consensus": 3,
    "node": 4, "rpc": 4, "listening": 4,
    "api": 5, "client": 5, "peers": 5, "security": 5, "web": 5, "host": 5,
    "app": 6, "assembly": 6, "service": 6, "trust": 6, "joining": 6, "admission": 6, "life": 6, "sections": 6,
    "rebuilding": 6, "webport": 6, "vitals": 6, "cli": 6, "config": 6, "__main__": 6,
}  # fmt: skip

TOP_FLOOR = 6
"""Its parts are one room: __main__ calls cli, cli calls config and app."""

EVERYWHERE = {"google.protobuf", "raftberry", "api"}

OUTSIDE = {
    "storage": {"lmdb"},
    "state": {"numpy", "pcodec"},
    "consensus": {"pysyncobj"},
    "node": set[str](),
    "rpc": {"grpc"},
    "api": {"grpc", "grpc_health", "grpc_reflection", "grpc_status", "google.rpc", "numpy"},
    "peers": {"grpc"},
    "security": {"cryptography"},
    "web": {"starlette", "uvicorn", "prometheus_client"},
    "host": {"systemd", "psutil", "zeroconf"},
    "sections": {"msgspec"},
    "app": set[str](),
    # The other side of the client port: what the command line calls nodes with.
    "client": {"grpc", "grpc_status", "google.rpc"},
    "cli": {"click", "rich", "msgspec", "uvloop"},
    "config": {"msgspec"},
    "__main__": {"click"},
}

HANDED_IN = {
    "asyncio", "concurrent", "multiprocessing", "select", "selectors", "signal", "socket", "subprocess",
    "threading", "time", "queue",
}  # fmt: skip
"""What floors 0 to 3 do not have: threads, sockets, sleep, clocks. (Of random: only the type.)"""


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module, dotted and absolute, with the line that names it."""

    module: str
    line: int


def part_of(path: Path) -> str:
    """The part of the house a file belongs to: its package, or its own name at the top."""
    relative = path.relative_to(HOUSE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def sources() -> list[Path]:
    return sorted(HOUSE.rglob("*.py"))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def name_of(path: Path) -> str:
    """Dotted module name of a file of the house."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_ours(module: str) -> bool:
    return (ROOT / Path(*module.split("."))).with_suffix(".py").is_file() or (
        ROOT / Path(*module.split(".")) / "__init__.py"
    ).is_file()


def imports_of(path: Path) -> Iterator[Import]:
    """Every import of a file; `from package import module` counts as the module."""
    package = name_of(path) if path.stem == "__init__" else name_of(path).rpartition(".")[0]
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:
                deeper = f"{base}.{alias.name}"
                yield Import(deeper if is_ours(deeper) or base == "google" else base, node.lineno)


def is_allowed_outside(module: str, allowed: set[str]) -> bool:
    return any(module == name or module.startswith(name + ".") for name in allowed)


def test_every_part_of_the_house_has_a_floor() -> None:
    assert {part_of(path) for path in sources()} <= FLOOR.keys()


def test_a_module_imports_only_lower_floors_or_its_own_package() -> None:
    wrong = []
    for path in sources():
        part = part_of(path)
        for found in imports_of(path):
            if not found.module.startswith("appliance."):
                continue
            other = found.module.split(".")[1]
            same_room = other == part or FLOOR[part] == TOP_FLOOR
            if not same_room and FLOOR[other] >= FLOOR[part] and FLOOR[part] + FLOOR[other] > 0:
                wrong.append(f"{path.relative_to(ROOT)}:{found.line} imports {found.module}")
    assert wrong == []


def test_each_library_is_used_only_where_it_lives() -> None:
    wrong = []
    for path in sources():
        allowed = EVERYWHERE | OUTSIDE.get(part_of(path), set())
        for found in imports_of(path):
            top = found.module.split(".")[0]
            if (
                top in sys.stdlib_module_names
                or top == "appliance"
                or is_allowed_outside(found.module, allowed)
            ):
                continue
            wrong.append(f"{path.relative_to(ROOT)}:{found.line} imports {found.module}")
    assert wrong == []


def test_grpc_stubs_are_used_only_at_the_edges() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources()
        if part_of(path) not in {"api", "client", "peers"}
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if alias.name.endswith("_pb2_grpc")
    ]
    assert wrong == []


def test_floors_0_to_3_get_clock_random_and_io_from_outside() -> None:
    wrong = []
    for path in sources():
        if FLOOR[part_of(path)] > 3 or part_of(path) == "clock":
            continue
        for found in imports_of(path):
            if found.module.split(".")[0] in HANDED_IN:
                wrong.append(f"{path.relative_to(ROOT)}:{found.line} imports {found.module}")
        for node in ast.walk(tree_of(path)):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "random"
            ):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} calls random.{node.func.attr}")
    assert wrong == []


def test_no_import_inside_a_function() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{inner.lineno}"
        for path in sources()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
        if isinstance(inner, ast.Import | ast.ImportFrom)
    ]
    assert wrong == []


def test_no_star_import() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names)
    ]
    assert wrong == []


def test_no_cycle_of_imports() -> None:
    graph = {
        name_of(path): sorted({found.module for found in imports_of(path) if is_ours(found.module)})
        for path in sources()
    }
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join([*trail[trail.index(module) :], module])
        if module not in done:
            for target in graph.get(module, []):
                visit(target, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_sizes_stay_readable(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MODULE_LINES_MAX
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= FUNCTION_LINES_MAX, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert not tree_of(path).body or ast.get_docstring(tree_of(path))


def test_no_unfinished_work_is_left_in_the_code() -> None:
    marks = ("TO" + "DO", "FIX" + "ME", "XX" + "X")
    wrong = [
        f"{path.relative_to(ROOT)}:{number}"
        for folder in ("appliance", "tests", "benchmarks", "proto", "script", "packaging")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in {".py", ".proto", ".sh", ""} and path.is_file()
        for number, line in enumerate(
            path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1
        )
        if any(mark in line for mark in marks)
    ]
    assert wrong == []
