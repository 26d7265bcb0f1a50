"""The command group, and the one place where errors become a line on stderr and an exit status.

Invariant: no traceback reaches a user unless RAFTBERRY_TRACEBACK is set.
Commands are imported by name when they are used, so that `raftberry version` does not wait for gRPC.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final

import click

from appliance import errors

EXIT_OK: Final = 0
EXIT_ERROR: Final = 1
EXIT_USAGE: Final = 2
EXIT_NO_QUORUM: Final = 3
EXIT_NOT_FOUND: Final = 4
EXIT_CONFLICT: Final = 5
EXIT_INTERRUPTED: Final = 130

TRACEBACK_VARIABLE: Final = "RAFTBERRY_TRACEBACK"

CIPHERS_VARIABLE: Final = "GRPC_SSL_CIPHER_SUITES"
RESTRICTED_CIPHERS: Final = "ECDHE-RSA-AES256-GCM-SHA384"
"""For TLS 1.2 only, and for RSA keys only, which none of our certificates has: so TLS 1.3 is what is left. gRPC's
Python has no setting for the version."""

RESOLVER_VARIABLE: Final = "GRPC_DNS_RESOLVER"
SYSTEM_RESOLVER: Final = "native"
"""The machine's own resolver, which knows `pi-1.local` by mDNS; gRPC's default asks DNS servers only."""

COMMANDS: Final = {
    "serve": ("appliance.cli.serve:serve", "Run one node."),
    "dev": ("appliance.cli.dev:dev", "Run a whole cluster on this machine, for trying and testing."),
    "write": ("appliance.cli.readings:write", "Write one reading."),
    "latest": ("appliance.cli.readings:latest", "Show the latest reading of each series."),
    "query": ("appliance.cli.readings:query", "Show readings of a range of time, raw or aggregated."),
    "watch": ("appliance.cli.readings:watch", "Show readings as they are committed."),
    "series": ("appliance.cli.series:series", "List series; set their unit and labels; delete them."),
    "kv": ("appliance.cli.kv:kv", "Keys and values beside the readings."),
    "status": ("appliance.cli.cluster:status", "Show each node: role, term, lag, rate, size."),
    "top": ("appliance.cli.cluster:top", "The same as `status --live`."),
    "members": ("appliance.cli.members:members", "List, add, remove, promote and move members."),
    "transfer": ("appliance.cli.cluster:transfer", "Hand leadership to another member."),
    "invite": ("appliance.cli.forming:invite", "Let another machine join; prints what to type there."),
    "join": ("appliance.cli.forming:join", "Make this machine a member of another's cluster."),
    "token": ("appliance.cli.token:token", "Make, list and revoke tokens: who may do what."),
    "policy": ("appliance.cli.policy:policy", "How long readings are kept; roll-ups."),
    "recover": ("appliance.cli.recover:recover", "Make a new cluster of one node whose majority is lost."),
    "import": ("appliance.cli.csv_files:import_csv", "Write a CSV file into one series; resumable."),
    "export": ("appliance.cli.csv_files:export_csv", "Write one series to a CSV file."),
    "backup": ("appliance.cli.backup:backup_command", "Write the whole state to a file, while writes go on."),
    "restore": ("appliance.cli.backup:restore_command", "Make a new cluster of one from a backup."),
    "verify": ("appliance.cli.verify:verify", "Compare what all nodes hold, by a hash at one index."),
    "doctor": ("appliance.cli.doctor:doctor", "Say what about this machine and cluster should be changed."),
    "bench": ("appliance.cli.bench:bench", "Measure the running cluster: writes, streams, reads, watches."),
    "drill": (
        "appliance.cli.drill.command:drill",
        "Measure what failures cost, on a cluster of its own or yours.",
    ),
    "sensor": ("appliance.cli.sensor:sensor", "Stream this machine's own sensors into the cluster."),
    "version": ("appliance.cli.version:version", "Show the version."),
}

EPILOG: Final = """\b
Exit status: 0 ok, 1 error, 2 usage, 3 no quorum or no node reachable, 4 not found, 5 conflict.
Nodes are named with --endpoint HOST:PORT (repeatable) or RAFTBERRY_ENDPOINTS=HOST:PORT,HOST:PORT.
"""


class LazyGroup(click.Group):
    """A group whose commands live in modules that are imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module_name, _, attribute = COMMANDS[cmd_name][0].partition(":")
        # What is imported stays: to look for garbage meanwhile is a twentieth of the work of a node's start, and so is
        # each of the three passes that would look through all of it afterwards.
        gc.disable()
        try:
            command = getattr(importlib.import_module(module_name), attribute)
        finally:
            gc.freeze()
            gc.enable()
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Raftberry: sensor readings on a small cluster. Acknowledged means on disk on a majority.

    \b
    Try it:
      raftberry dev
      raftberry write kitchen temperature 21.5
      raftberry latest
    """


def run(arguments: Sequence[str]) -> int:
    """Run a command line; the exit status. Never raises, unless a trace was asked for."""
    _open_closed_streams()
    # Read by gRPC when it is imported, with the command: its own log lines are not for users.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    os.environ[CIPHERS_VARIABLE] = RESTRICTED_CIPHERS
    os.environ.setdefault(RESOLVER_VARIABLE, SYSTEM_RESOLVER)
    try:
        status = cli.main(args=list(arguments), prog_name="raftberry", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of a pipe (head, less) has gone: nothing is wrong. Python must not flush to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except (KeyboardInterrupt, click.Abort):
        return EXIT_INTERRUPTED
    except Exception as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        return _report(error, arguments)
    return status if isinstance(status, int) else EXIT_OK


def exit_status(error: BaseException) -> int:
    """The exit status that stands for an error."""
    if isinstance(error, click.ClickException):
        return error.exit_code
    for kinds, status in _STATUSES:
        if isinstance(error, kinds):
            return status
    return EXIT_ERROR


_STATUSES: Final[tuple[tuple[tuple[type[errors.RaftberryError], ...], int], ...]] = (
    ((errors.ConfigurationError, errors.InvalidArgument), EXIT_USAGE),
    ((errors.NoLeader, errors.Quarantined), EXIT_NO_QUORUM),
    ((errors.NotFound,), EXIT_NOT_FOUND),
    ((errors.ConditionFailed, errors.SequenceReused), EXIT_CONFLICT),
)


def _open_closed_streams() -> None:
    """`>&-` leaves no stream to print to, and its descriptor to the first file that is opened."""
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def _report(error: Exception, arguments: Sequence[str]) -> int:
    if isinstance(error, click.ClickException):
        error.show()
    elif isinstance(error, errors.RaftberryError) and error.leaves_doubt:
        _complain(f"{error}\nThe outcome is unknown: it may or may not have been applied.")
    elif isinstance(error, errors.RaftberryError):
        _complain(str(error))
    elif isinstance(error, OSError):
        _complain(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    elif isinstance(error, UnicodeEncodeError) and (wrong := _not_utf8(arguments)):
        _complain(f"the argument '{wrong}' is not UTF-8, as names, patterns and labels are; type it anew")
        return EXIT_USAGE
    else:
        _complain(
            f"internal error: {type(error).__name__}: {error}\n"
            f"Please report it, with the trace that {TRACEBACK_VARIABLE}=1 shows."
        )
    return exit_status(error)


def _not_utf8(arguments: Sequence[str]) -> str:
    """The first argument that no request can carry, its bytes escaped. Values and paths may be any bytes."""
    readable = (os.fsencode(one).decode("utf-8", "backslashreplace") for one in arguments)
    return next((text for text, one in zip(readable, arguments, strict=True) if text != one), "")


def _complain(text: str) -> None:
    click.echo(f"raftberry: {text}", err=True)
