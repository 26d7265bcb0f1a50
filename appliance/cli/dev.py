"""dev: a cluster of real node processes on this machine."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path

import click

from appliance.cli.supervisor import (
    PORTS_PER_NODE,
    NodePlan,
    Supervisor,
    node_arguments,
    own_executable,
    plan_nodes,
)

DEFAULT_DATA = "~/.local/state/raftberry/dev"


@click.command()
@click.option("--nodes", type=click.IntRange(1, 9), default=3, show_default=True, help="How many.")
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT_DATA,
    show_default=True,
    help="Data directory; each node has one below it.",
)
@click.option(
    "--base-port",
    type=click.IntRange(1024, 65_000),
    default=7440,
    show_default=True,
    help=f"Node i listens on this + {PORTS_PER_NODE} * i (clients), + 1 (peers), + 2 (web).",
)
def dev(nodes: int, data: Path, base_port: int) -> None:
    """Run a cluster on this machine: real processes, restarted when they die. Ctrl-C stops all.

    \b
    Example: raftberry dev --nodes 3 --data /tmp/raftberry
    """
    data = data.expanduser().absolute()
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    plans = plan_nodes(nodes, base_port=base_port, data=data)
    click.echo(_introduction(plans, data))
    asyncio.run(_supervise(plans))


async def _supervise(plans: Sequence[NodePlan]) -> None:
    executable = own_executable()
    commands = {plan.name: [*executable, *node_arguments(plan, plans)] for plan in plans}
    supervisor = Supervisor(commands, show=click.echo)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, supervisor.stop)
    await supervisor.run()


def _introduction(plans: Sequence[NodePlan], data: Path) -> str:
    endpoints = ",".join(plan.client_address for plan in plans)
    lines = [f"{len(plans)} nodes on this machine, data in {data}"]
    for plan in plans:
        lines.append(
            f"  {plan.name}  clients {plan.client_address}  peers {plan.peer_address}  web {plan.web_address}"
        )
    lines += [
        "Try next, in another terminal:",
        f"  export RAFTBERRY_ENDPOINTS={endpoints}",
        "  raftberry sensor                  stream this machine's sensors",
        "  raftberry status --live           who leads, rates, lag",
        f"  http://{plans[0].web_address}/           the dashboard, in a browser",
        "  raftberry watch                   readings as they are committed",
        "  kill -9 PROCESS                   of any node below; nothing acknowledged is lost",
        "",
    ]
    return "\n".join(lines)
