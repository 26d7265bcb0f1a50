"""The parts of the Debian package that are text agree with the program and with each other.

What needs a built package is in script/test-package and script/test-system.
"""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest

from appliance.cli.main import COMMANDS
from appliance.config import Config, load

ROOT = Path(__file__).resolve().parents[2]
PACKAGING = ROOT / "packaging"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def unit() -> dict[str, dict[str, str]]:
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(PACKAGING / "systemd/raftberry.service")
    return {name: dict(section) for name, section in parser.items()}


def keys() -> list[str]:
    return [
        f"{section.name}.{field.encode_name}"
        for section in msgspec.structs.fields(Config)
        for field in msgspec.structs.fields(section.type)
    ]


def test_the_installed_configuration_is_accepted_and_changes_nothing() -> None:
    installed = load(path=PACKAGING / "systemd/raftberry.toml", environment={}, flags={})
    assert installed == load(path=None, environment={}, flags={})


def test_what_the_installed_configuration_comments_out_is_a_known_key(tmp_path: Path) -> None:
    text = (PACKAGING / "systemd/raftberry.toml").read_text()
    # `#key = value`: an example; `# text`: a sentence.
    examples = re.sub(r"^#(\w+ = )", r"\1", text, flags=re.MULTILINE)
    found = tomllib.loads(examples)
    assert {f"{section}.{key}" for section, values in found.items() for key in values} <= set(keys())


@pytest.mark.parametrize("key", keys())
def test_the_manual_explains_each_key(key: str) -> None:
    page = (PACKAGING / "man/raftberry.toml.5").read_text()
    described = {
        word for line in page.splitlines() if line.startswith(".B") for word in re.findall(r"[\w.]+", line)
    }
    assert key in described, f"packaging/man/raftberry.toml.5 does not explain {key}"


def test_the_manual_of_the_commands_names_each_command() -> None:
    page = subprocess.run(
        [sys.executable, PACKAGING / "manual.py"], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.replace("\\-", "-")
    assert [name for name in COMMANDS if f"raftberry {name}" not in page] == []


def test_the_service_starts_a_command_that_is_there() -> None:
    program, command = unit()["Service"]["ExecStart"].split()
    installed = dict(
        line.split() for line in (PACKAGING / "debian/raftberry.install").read_text().splitlines()
    )
    assert program == f"/{installed['frozen/raftberry']}/raftberry"
    assert command in COMMANDS


def test_the_service_unpacks_the_executable_into_memory_of_its_own() -> None:
    """The directory is compiled in; another one would be the machine's, where SIGKILL leaves what was unpacked."""
    [directory] = re.findall(
        r'runtime_tmpdir="(.*?)"', (PACKAGING / "pyinstaller/raftberry.spec").read_text()
    )
    assert unit()["Service"]["TemporaryFileSystem"].startswith(f"{directory}:")


def test_a_wrong_configuration_is_not_tried_again_and_again() -> None:
    """2 is what a refused configuration ends with (appliance/cli/main.py)."""
    assert unit()["Service"]["RestartPreventExitStatus"] == "2"


def test_the_changelog_of_the_package_has_the_version_of_the_project() -> None:
    first = (PACKAGING / "debian/changelog").read_text().splitlines()[0]
    assert first.startswith(f"raftberry ({PROJECT['version']}) ")


def prerm(tmp_path: Path, *, version: str, format_since: str, arguments: tuple[str, ...]) -> tuple[int, str]:
    """The script as script/build-deb fills it in."""
    text = (PACKAGING / "debian/raftberry.prerm").read_text()
    script = tmp_path / "prerm"
    script.write_text(text.replace("@FORMAT_SINCE@", format_since).replace("@VERSION@", version))
    done = subprocess.run(["sh", script, *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("arguments", "is_refused"),
    [
        (("upgrade", "0.2.0"), True),
        (("upgrade", "0.3.0"), False),
        (("upgrade", "0.4.0"), False),
        (("upgrade", "0.6.0"), False),
        (("remove",), False),
        (("failed-upgrade", "0.4.0"), False),
        (("failed-upgrade", "0.6.0"), True),
    ],
)
def test_a_version_that_cannot_read_the_data_is_refused(
    tmp_path: Path, arguments: tuple[str, ...], is_refused: bool
) -> None:
    """From 0.5.0, whose data 0.3.0 and later can read."""
    status, said = prerm(tmp_path, version="0.5.0", format_since="0.3.0", arguments=arguments)
    assert (status != 0) is is_refused
    if arguments[0] == "upgrade" and is_refused:
        assert "refusing to go from 0.5.0 to 0.2.0" in said
        assert "let this node join again" in said
