"""Generates the protobuf and gRPC code when the project is built or installed.

Invariant: `generated/` holds exactly what protoc makes of `proto/` now; it is never committed.
Called by hatchling (see pyproject.toml) for a wheel and for an editable install, and by script/generate.
"""

from __future__ import annotations

import importlib
import os
import shutil
from pathlib import Path
from typing import Any

from grpc_tools import protoc
from hatchling.builders.hooks.plugin.interface import BuildHookInterface


def generate(root: Path) -> Path:
    """Makes `generated/` from `proto/` anew; returns it."""
    source = root / "proto"
    target = root / "generated"
    fresh = root / f"generated.{os.getpid()}.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    # google/protobuf comes with protoc, google/rpc with googleapis-common-protos.
    rpc = Path(importlib.import_module("google.rpc.status_pb2").__file__ or "")
    includes = [source, Path(protoc.__file__).parent / "_proto", rpc.parents[2]]
    command = [
        "protoc",
        *(f"-I{include}" for include in includes),
        f"--python_out={fresh}",
        f"--pyi_out={fresh}",
        f"--grpc_python_out={fresh}",
        *(str(path) for path in sorted(source.rglob("*.proto"))),
    ]
    if (status := protoc.main(command)) != 0:
        raise RuntimeError(f"protoc ended with status {status}: see its message above")
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
    return target


class GeneratedCodeHook(BuildHookInterface):  # type: ignore[type-arg]
    """Hatchling's hook: generated packages go into the wheel beside appliance/."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        generated = generate(Path(self.root))
        if version != "editable":
            for package in sorted(path for path in generated.iterdir() if path.is_dir()):
                build_data["force_include"][str(package)] = package.name


if __name__ == "__main__":
    print(generate(Path(__file__).resolve().parent.parent))
