"""docs/getting-started.md, sections 1 to 4, typed word for word on fresh machines, each command timed, up to the chart.

Run by script/test-walk. Prints a table by step, and each line of output that is not as the page shows it: figures,
times, ids and secrets may differ, words may not. Exit status 1 if there is any.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.system.machines import CLEAN_ENVIRONMENT, Machine, Network, run

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = ROOT / "docs" / "getting-started.md"
NAMES: Final = ("pi-1", "pi-2", "pi-3")
PREFIX: Final = "walk-"
LAST_STEP: Final = "4"

_PROMPT: Final = re.compile(r"^(?:pi@)?(pi-[1-3]|laptop):~ \$ (.*)$")
_VARIES: Final = (
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z"), "TIME"),
    (re.compile(r"rb([jt])1_[\w.…-]+"), r"SECRET-\1"),
    (re.compile(r"\b[0-9a-f]{16}\b"), "ID"),
    (re.compile(r"_(?:arm64|amd64)\.deb"), "_ARCH.deb"),
    (re.compile(r"\d[\d.,]*"), "N"),
    (re.compile(r"\s+"), " "),
)


@dataclass(frozen=True, slots=True)
class Command:
    """What a page tells to type, and what it says that comes."""

    step: str
    host: str
    text: str
    expected: tuple[str, ...]


@dataclass(slots=True)
class Walk:
    """What was seen."""

    seconds: dict[str, float] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)


def commands_of(page: str) -> Iterator[Command]:
    """Of the numbered sections, in order."""
    step, is_console = "", False
    host, text, expected = "", "", []
    for line in [*page.splitlines(), "```"]:
        if line.startswith("## "):
            step = line.removeprefix("## ") if line[3:4].isdigit() else ""
        is_fence = line.startswith("```")
        prompt = _PROMPT.match(line) if is_console else None
        if (is_fence or prompt) and text:
            yield Command(step, host, text, tuple(expected))
            text = ""
        if is_fence:
            is_console = line == "```console" and bool(step)
        elif prompt:
            host, text, expected = prompt[1], prompt[2], []
        elif is_console and line:
            expected.append(line)


def plain(line: str) -> str:
    """Without what differs from one machine to the next."""
    for pattern, word in _VARIES:
        line = pattern.sub(word, line)
    return line.strip()


class Shell:
    """Somebody at a prompt."""

    def __init__(self, *command: str, folder: Path | None = None) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
        )

    def type(self, text: str) -> list[str]:
        """Lines of output."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        mark = f"done-{os.urandom(8).hex()}"
        self._process.stdin.write(f"{text}\necho; echo {mark}\n")
        self._process.stdin.flush()
        lines = []
        while (line := self._process.stdout.readline().rstrip("\n")) != mark:
            assert self._process.poll() is None, f"the shell ended at: {text}"
            lines.append(line)
        return [line for line in lines if line]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class Site:
    """Three machines with nothing of ours, and a laptop."""

    def __init__(self, base: Path, package: Path, folder: Path, ends: ExitStack) -> None:
        self.folder, self.package = folder, package
        network = Network([*NAMES, "laptop"], prefix=PREFIX)
        ends.callback(network.close)
        self.machines = {name: self._boot(name, base, ends) for name in NAMES}
        self._laptop_hosts(network, ends)
        self.laptop = folder / "laptop"
        self.laptop.mkdir()
        self.shells = {name: Shell(*self._login(name)) for name in NAMES}
        self.shells["laptop"] = Shell("ip", "netns", "exec", f"{PREFIX}laptop", "bash", folder=self.laptop)
        for shell in self.shells.values():
            ends.callback(shell.close)

    def _boot(self, name: str, base: Path, ends: ExitStack) -> Machine:
        machine = Machine(name, base, self.folder, self.package.parent, prefix=PREFIX)
        ends.callback(machine.close)
        machine.boot()
        machine.sh("useradd", "--create-home", "--shell", "/bin/bash", "pi")
        machine.write("/etc/sudoers.d/pi", "pi ALL=(ALL) NOPASSWD: ALL\n")
        # Where `scp` puts it.
        machine.sh("cp", f"/srv/repository/{self.package.name}", "/home/pi/")
        return machine

    def _login(self, name: str) -> tuple[str, ...]:
        # A container's console is not what is tried here: enter it as its pi.
        return ("nsenter", "-t", str(self.machines[name].leader), "-a", *CLEAN_ENVIRONMENT, "su", "-", "pi")

    def _laptop_hosts(self, network: Network, ends: ExitStack) -> None:
        """This host runs no mDNS: the laptop's `.local` is a file."""
        folder = Path("/etc/netns") / f"{PREFIX}laptop"
        folder.mkdir(parents=True)
        ends.callback(shutil.rmtree, folder)
        lines = [f"{network.addresses[name]} {name}.local" for name in NAMES]
        (folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))

    def prepare_laptop(self, page: str) -> None:
        """What the page says should be there: the generated code, and write.py as it stands on the page."""
        (self.laptop / "write.py").write_text(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0])
        self.shells["laptop"].type(
            f"export PATH={ROOT}/.venv/bin:$PATH PYTHONPATH={ROOT}:{ROOT}/generated; unset RAFTBERRY_ENDPOINTS"
        )

    def copy_to_laptop(self, text: str) -> None:
        """`scp pi@HOST.local:FILE .`, without an ssh server in the containers."""
        found = re.fullmatch(r"scp pi@(pi-[1-3])\.local:(\S+) \.", text)
        assert found, text
        shutil.copy(self.machines[found[1]].root / "home/pi" / found[2], self.laptop)


def follow(site: Site, walk: Walk, command: Command) -> None:
    text = command.text.replace("_arm64.deb", f"_{architecture()}.deb")
    for kind, secret in walk.secrets.items():
        text = re.sub(rf"{kind}_…", secret, text)
    began = time.monotonic()
    if text.startswith("scp "):
        site.copy_to_laptop(text)
        lines: list[str] = []
    else:
        lines = site.shells[command.host].type(text)
    seconds = time.monotonic() - began
    walk.seconds[command.step] = walk.seconds.get(command.step, 0.0) + seconds
    print(f"[{seconds:5.1f} s] {command.host}: {command.text}", flush=True)
    for line in lines:
        for found in re.findall(r"(rb[jt]1)_[\w.-]+", line):
            walk.secrets[found] = re.findall(rf"{found}_[\w.-]+", line)[0]
    if command.text.startswith(("sudo apt", "scp")):
        # What apt says is apt's.
        return
    found, expected = [plain(line) for line in lines], [plain(line) for line in command.expected]
    if not is_as_told(found, expected, is_progress=" join " in command.text):
        walk.differences.append(
            "\n".join([f"{command.host}: {command.text}", *(f"  page:    {line}" for line in command.expected),
                       *(f"  machine: {line}" for line in lines)])
        )  # fmt: skip


def is_as_told(found: list[str], expected: list[str], *, is_progress: bool) -> bool:
    """is_progress: a stage that was over before it was looked at may be missing; the last line may not."""
    if not is_progress or not found:
        return found == expected
    rest = iter(expected)
    return all(line in rest for line in found) and found[-1] == expected[-1]


def architecture() -> str:
    return run("dpkg", "--print-architecture").strip()


def look_at_the_chart(site: Site, walk: Walk, token: str, picture: Path) -> None:
    """In Chromium, on the laptop."""
    began = time.monotonic()
    words = ("ip", "netns", "exec", f"{PREFIX}laptop", sys.executable, "-m", "tests.system.first_chart")
    print(run(*words, "https://pi-1.local:7442/", token, str(picture)), flush=True)
    walk.seconds["4. The chart"] = walk.seconds.get("4. The chart", 0.0) + time.monotonic() - began


def main(base: Path, package: Path, picture: Path) -> int:
    page = PAGE.read_text("utf-8")
    walk = Walk()
    with ExitStack() as ends:
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory(dir=base.parent)))
        site = Site(base, package, folder, ends)
        site.prepare_laptop(page)
        for command in commands_of(page):
            follow(site, walk, command)
        if not walk.differences:
            look_at_the_chart(site, walk, walk.secrets["rbt1"], picture)
    print("\n| step | the machines took |\n|---|--:|")
    for step, seconds in walk.seconds.items():
        print(f"| {step} | {seconds:.0f} s |")
    print(f"| together | {sum(walk.seconds.values()):.0f} s |")
    for difference in walk.differences:
        print(f"\nNOT AS THE PAGE SAYS\n{difference}")
    return 1 if walk.differences else 0


if __name__ == "__main__":
    raise SystemExit(main(*map(Path, sys.argv[1:4])))
