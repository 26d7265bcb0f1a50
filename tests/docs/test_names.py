"""Configuration keys that pages name exist, alarms and findings are explained, the API reference is current."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from appliance.api import failures
from appliance.config import Config
from tests.docs.pages import PAGES, ROOT, code_of

SECTIONS = {section.name: section.type for section in msgspec.structs.fields(Config)}
KEYS = {
    f"{name}.{field.encode_name}" for name, kind in SECTIONS.items() for field in msgspec.structs.fields(kind)
}
KEY = re.compile(rf"(?<![\w./-])({'|'.join(SECTIONS)})\.([a-z_]+)(?![\w(./])")
VARIABLE = re.compile(r"\bRAFTBERRY_([A-Z]+)__([A-Z_]+)\b")
FAILPOINT = "_commit"
"""`journal.before_commit` and the like are places in the program."""

FILES = {"py", "md", "proto", "toml", "service", "json", "js", "html", "tar", "backup", "txt", "new", "local"}


def keys_of(page: str) -> set[str]:
    found = set()
    for code in code_of(page):
        if code.kind not in ("python", "javascript"):
            found |= {f"{section}.{key}" for section, key in KEY.findall(code.text) if key not in FILES}
            found |= {f"{section}.{key}".lower() for section, key in VARIABLE.findall(code.text)}
    return {key for key in found if key != "section.key" and not key.endswith(FAILPOINT)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_configuration_key_that_a_page_names_exists(page: Path) -> None:
    assert keys_of(page.read_text("utf-8")) - KEYS == set()


def test_keys_are_found_in_text_and_environment() -> None:
    page = "`storage.nosuch = 1`, `log.py`\n\n    RAFTBERRY_NODE__NOSUCH=1 x\n"
    assert keys_of(page) == {"storage.nosuch", "node.nosuch"}


ALARMS = [
    ("appliance/node/report.py", "_alarms"),
    ("appliance/node/space.py", "refusal"),
    ("appliance/node/space.py", "weigh"),
    ("appliance/node/budget.py", "alarm"),
    ("appliance/node/refusals.py", "alarm"),
    ("appliance/node/verification.py", "_describe"),
    ("appliance/trust.py", "_alarms"),
    ("appliance/app.py", "_found"),
]


@pytest.mark.parametrize(("path", "function"), ALARMS)
def test_every_alarm_is_explained(path: str, function: str) -> None:
    page = (ROOT / "docs/operating.md").read_text("utf-8")
    texts = list(texts_of(ROOT / path, function))
    assert texts
    assert [text for text in texts if not any(part in page for part in text)] == []


def texts_of(path: Path, function: str) -> list[list[str]]:
    """Of each text that a function makes, the parts between what it fills in."""
    body = next(
        node
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == function
    )
    body.body = body.body[1:] if ast.get_docstring(body) else body.body
    inner = {id(value) for node in ast.walk(body) if isinstance(node, ast.JoinedStr) for value in node.values}
    texts = []
    for node in ast.walk(body):
        if isinstance(node, ast.JoinedStr):
            texts.append([str(part.value) for part in node.values if isinstance(part, ast.Constant)])
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            texts.append([node.value])
    sentences = [[part.strip(" :;,()")[:40] for part in text if len(part.strip()) >= 12] for text in texts]
    return [parts for parts in sentences if parts]


def test_every_finding_of_doctor_is_explained() -> None:
    page = (ROOT / "docs/operating.md").read_text("utf-8")
    found = set()
    for path in ("appliance/cli/doctor.py", "appliance/host/checkup.py"):
        for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Finding":
                what = node.args[1]
                assert isinstance(what, ast.Constant)
                found.add(str(what.value))
    assert len(found) > 10
    assert [what for what in sorted(found) if f"| {what} |" not in page] == []


def test_the_api_reference_is_what_the_protos_say() -> None:
    made = subprocess.run(
        [sys.executable, "packaging/reference.py"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    current = (ROOT / "docs/api.md").read_text("utf-8")
    assert made == current, "docs/api.md is older than proto/: run script/generate-docs"


def test_every_reason_of_an_error_is_named() -> None:
    page = (ROOT / "README.md").read_text("utf-8")
    assert [verdict.reason for verdict in failures.TABLE.values() if f"`{verdict.reason}`" not in page] == []
