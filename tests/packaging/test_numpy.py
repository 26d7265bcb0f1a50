"""The package has numpy without linear algebra and without the modules that its recipe leaves out."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

ABSENT = {
    "convolve", "corrcoef", "correlate", "cov", "dot", "einsum", "fft", "inner", "kron", "linalg", "ma", "matmul",
    "matvec", "outer", "polyfit", "polynomial", "random", "roots", "tensordot", "testing", "vdot", "vecdot", "vecmat",
}  # fmt: skip
"""What calls the library that packaging/pyinstaller/blas replaces, and what raftberry.spec excludes."""


def uses(source: str) -> list[str]:
    found = []
    for one in ast.walk(ast.parse(source)):
        if isinstance(one, ast.BinOp | ast.AugAssign) and isinstance(one.op, ast.MatMult):
            found.append(f"line {one.lineno}: @")
        elif isinstance(one, ast.Attribute) and one.attr in ABSENT:
            found.append(f"line {one.lineno}: {one.attr}")
        elif isinstance(one, ast.ImportFrom) and (one.module or "").split(".")[0] == "numpy":
            found.extend(f"line {one.lineno}: {name.name}" for name in one.names if name.name in ABSENT)
    return found


@pytest.mark.parametrize(
    "source", ["a @ b", "np.dot(a, b)", "a.dot(b)", "np.linalg.norm(a)", "from numpy import outer"]
)
def test_linear_algebra_is_seen(source: str) -> None:
    assert uses(source) != []


def test_no_module_asks_numpy_for_what_the_package_leaves_out() -> None:
    users = [
        path for path in sorted((ROOT / "appliance").rglob("*.py")) if "import numpy" in path.read_text()
    ]
    assert users, "no module uses numpy: this test looks at nothing"
    assert {str(path): found for path in users if (found := uses(path.read_text()))} == {}
