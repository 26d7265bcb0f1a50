"""Prints raftberry(1) from the commands themselves, so that the page cannot say anything else.

Called by script/build-deb.
"""

from __future__ import annotations

import click

from appliance.cli.main import COMMANDS, cli
from appliance.cli.version import installed_version

FILES = """\
.SH EXIT STATUS
0 ok, 1 error, 2 usage, 3 no quorum or no node reachable, 4 not found, 5 conflict.
.SH ENVIRONMENT
.TP
.B RAFTBERRY_ENDPOINTS
Nodes to talk to, HOST:PORT separated by commas. Default: 127.0.0.1:7440.
.TP
.B RAFTBERRY_TRACEBACK
Show a trace instead of one line when a command fails.
.SH FILES
.I /etc/raftberry/raftberry.toml
.br
.I /var/lib/raftberry
.br
.I /dev/shm
The executable unpacks itself there, 100 MB, and removes that when it ends. It must not be mounted noexec.
.SH SERVICE
.nf
systemctl status raftberry                 role, term, leader, readings per second, what is wrong
systemctl reload raftberry                 log level and quotas
journalctl \\-u raftberry                    one event, one line
journalctl RAFTBERRY_EVENT=became_leader   every key=value of a line is a field
.fi
.SH SEE ALSO
.BR raftberry.toml (5),
.BR systemctl (1),
.BR journalctl (1)
"""


def main() -> None:
    """The page, in man(7)."""
    print(f'.TH RAFTBERRY 1 "" "Raftberry {installed_version()}" "Raftberry"')
    print(".SH NAME\nraftberry \\- sensor readings on a small cluster")
    print(".SH SYNOPSIS\n.B raftberry\n.I COMMAND\n.RI [ OPTIONS ]")
    print(".SH DESCRIPTION")
    print(
        ".B raftberry\nruns the nodes of a cluster and talks to them. Acknowledged means: on disk on a majority."
    )
    print(".SH COMMANDS")
    with click.Context(cli, info_name="raftberry") as context:
        for name in COMMANDS:
            command = cli.get_command(context, name)
            assert command is not None
            describe(command, f"raftberry {name}", context)
    print(FILES, end="")


def describe(command: click.Command, path: str, parent: click.Context) -> None:
    """One command with its options; a group's commands after it."""
    with click.Context(command, info_name=path, parent=parent) as context:
        usage = " ".join(command.collect_usage_pieces(context))
        print(f".SS {quote(path)} {quote(usage)}")
        print_help(command.help or "")
        for parameter in command.get_params(context):
            record = parameter.get_help_record(context)
            if record is not None and "--help" not in record[0]:
                print(f".TP\n.B {quote(record[0])}\n{quote(' '.join(record[1].split()))}")
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                child = command.get_command(context, name)
                assert child is not None
                describe(child, f"{path} {name}", context)


def print_help(text: str) -> None:
    """Paragraphs; those after \\b keep their lines."""
    for paragraph in text.split("\n\n"):
        if paragraph.startswith("\b"):
            print(".PP\n.nf")
            print("\n".join(quote(line) for line in paragraph.splitlines()[1:]))
            print(".fi")
        else:
            print(f".PP\n{quote(' '.join(paragraph.split()))}")


def quote(text: str) -> str:
    """Text that man(7) takes as it stands."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


if __name__ == "__main__":
    main()
