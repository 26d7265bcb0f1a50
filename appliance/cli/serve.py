"""serve: one node, in the foreground, until SIGTERM or SIGINT."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import click
import uvloop

from appliance import app
from appliance.config import LOG_LEVELS, load


@click.command()
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    help="Read this file only.  [default: /etc/raftberry/raftberry.toml, then /etc/raftberry/conf.d/*.toml]",
)
@click.option("--name", help="Name of this node, unique in the cluster.  [default: the host name]")
@click.option("--data", metavar="DIR", help="Data directory.  [default: /var/lib/raftberry]")
@click.option("--client-address", metavar="HOST:PORT", help="For clients.  [default: 127.0.0.1:7440]")
@click.option("--peer-address", metavar="HOST:PORT", help="For other nodes.  [default: 127.0.0.1:7441]")
@click.option("--web-address", metavar="HOST:PORT", help="For metrics and health.  [default: 127.0.0.1:7442]")
@click.option(
    "--initial-members",
    metavar="NAME=HOST:PORT,...",
    help="The founders with their peer addresses.  [default: this node alone]",
)
@click.option("--insecure", is_flag=True, default=None, help="Allow addresses beyond loopback, unencrypted.")
@click.option("--log-level", type=click.Choice(LOG_LEVELS), help="[default: info]")
def serve(
    config_file: Path | None,
    name: str | None,
    data: str | None,
    client_address: str | None,
    peer_address: str | None,
    web_address: str | None,
    initial_members: str | None,
    insecure: bool | None,
    log_level: str | None,
) -> int:
    """Run one node. Flags win over RAFTBERRY_SECTION__KEY, these over the files.

    \b
    Example: raftberry serve --name pi-1 --data /var/lib/raftberry
    """
    read = partial(
        load,
        path=config_file,
        environment=os.environ,
        flags={
            "node.name": name,
            "storage.data": data,
            "client.address": client_address,
            "peer.address": peer_address,
            "web.address": web_address,
            "cluster.initial_members": initial_members,
            "security.insecure": insecure,
            "log.level": log_level,
        },
    )
    failpoint = os.environ.get("RAFTBERRY_FAILPOINT", "")
    return uvloop.run(app.serve(read(), failpoint=failpoint, read_again=read))
