"""Every `raftberry ...` that a page tells to type names a command and options that exist, and no argument too many."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
import pytest

from appliance.cli.main import cli
from tests.docs.pages import PAGES, ROOT, Code, code_of

_PROMPT: Final = re.compile(r"^(?:[\w@:~.\- ]*\$ )")
_COMMAND: Final = re.compile(r"^(?:sudo )?(?:\w+=\S* )*(?:\S*bin/)?raftberry (?=[a-z\-])(.*)")
_END: Final = frozenset({"|", ">", ">>", "<", "&&", ";", "&"})


def commands_of(page: str) -> Iterator[tuple[list[str], bool]]:
    """(words behind `raftberry`, whether it is only spoken of)."""
    for code in code_of(page):
        for line in lines_of(code):
            match = _COMMAND.match(line)
            if match:
                yield words_of(match[1]), code.kind == "span"


def lines_of(code: Code) -> Iterator[str]:
    for line in code.text.replace("\\\n", " ").splitlines():
        if _PROMPT.match(line):
            yield from _PROMPT.sub("", line).split("; ")
        elif code.kind in ("", "bash", "sh", "span") or line.startswith("sudo raftberry "):
            yield line


def words_of(text: str) -> list[str]:
    lexer = shlex.shlex(text, posix=True, punctuation_chars="|><;&")
    lexer.whitespace_split = True
    words = list(lexer)
    return words[: next((at for at, word in enumerate(words) if word in _END), len(words))]


def fault_of(words: list[str], *, is_spoken_of: bool) -> str:
    """What is wrong with a command line, without running it; empty: nothing."""
    command: click.Command = cli
    context = click.Context(cli, info_name="raftberry")
    try:
        while isinstance(command, click.Group):
            if "-h" in words[:1] or "--help" in words[:1] or (command is not cli and not words):
                return ""
            if not words or words[0].startswith("-"):
                return check(command, words, context, is_spoken_of=is_spoken_of)
            name, *words = words
            child = command.get_command(context, name)
            if child is None:
                return f"no command {name}"
            command, context = child, click.Context(child, info_name=name, parent=context)
        return check(command, words, context, is_spoken_of=is_spoken_of)
    except click.UsageError as error:
        return error.format_message()


def check(command: click.Command, words: list[str], context: click.Context, *, is_spoken_of: bool) -> str:
    values, left, _ = command.make_parser(context).parse_args(list(words))
    if left:
        return f"too many arguments: {left}"
    for parameter in command.get_params(context):
        value = values.get(parameter.name or "")
        if (
            isinstance(parameter, click.Argument)
            and parameter.required
            and not is_spoken_of
            and not (isinstance(value, str | tuple) and value)
        ):
            return f"without {parameter.name}"
        if isinstance(parameter.type, click.Choice) and isinstance(value, str):
            parameter.type.convert(value, parameter, context)
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_a_page_shows_exists(page: Path) -> None:
    found = [
        (" ".join(words), fault_of(words, is_spoken_of=is_spoken_of))
        for words, is_spoken_of in commands_of(page.read_text("utf-8"))
    ]
    assert [one for one in found if one[1]] == []


def test_commands_are_found_in_every_form() -> None:
    page = (
        "see `raftberry join`\n\n    sudo raftberry status  # now\n    raftberry latest | head\n\n"
        "```console\npi@pi-1:~ $ raftberry kv list\nraftberry: a line of output\nraftberry 0.1.0\n```\n"
    )
    assert [words for words, _ in commands_of(page)] == [["kv", "list"], ["status"], ["latest"], ["join"]]


@pytest.mark.parametrize(
    "line",
    [
        "nosuch",
        "status --nosuch",
        "write kitchen",
        "write a b 1 2",
        "members nosuch",
        "latest -o yaml",
        "--nosuch",
    ],
)
def test_a_command_that_does_not_exist_is_noticed(line: str) -> None:
    assert fault_of(line.split(), is_spoken_of=False)


def test_the_pages_show_what_a_user_needs_first() -> None:
    shown = {words[0] for page in PAGES for words, _ in commands_of(page.read_text("utf-8")) if words}
    assert {"write", "latest", "status", "invite", "join", "token", "backup", "restore", "recover"} <= shown
