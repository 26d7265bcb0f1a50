"""recover: a new cluster out of one node, when the majority is lost for good."""

from __future__ import annotations

import os

import click

from appliance.cli.common import note, output_option
from appliance.cli.main import EXIT_ERROR, EXIT_OK
from appliance.cli.output import emit_one
from appliance.clock import system_random
from appliance.config import load
from appliance.host.machine import machine_id
from appliance.model import hex_id
from appliance.node import forcing
from appliance.node.restoring import give, owner_of
from appliance.storage.directory import DataDirectory, check_holds_node


@click.command()
@click.option(
    "--force-new-cluster", is_flag=True, help="The only way of recovering there is: say that you mean it."
)
@click.option("--name", help="Name of this node.  [default: as configured, or the host name]")
@click.option("--data", metavar="DIR", help="Data directory.  [default: as configured]")
@click.option("--peer-address", metavar="HOST:PORT", help="For other nodes.  [default: as configured]")
@click.option("--yes", is_flag=True, help="Do it: nobody of the old cluster will talk to this node again.")
@output_option
def recover(
    force_new_cluster: bool,
    name: str | None,
    data: str | None,
    peer_address: str | None,
    yes: bool,
    output: str,
) -> int:
    """Make this node the only member of a new cluster: for a majority that is lost for good. It must not be running.

    Without --yes it only says what the node holds and what may be lost. What the lost nodes acknowledged and this one
    did not hear of is lost, so run it on the node with the highest last index. The cluster gets a new id:
    an old member that meets this node stands by from then on, and joins again (`raftberry join ... --discard-data`).

    \b
    Example: raftberry recover --force-new-cluster --data /var/lib/raftberry
    """
    if not force_new_cluster:
        raise click.UsageError("say --force-new-cluster; with a majority alive nothing has to be recovered")
    flags = {"node.name": name, "storage.data": data, "peer.address": peer_address}
    config = load(path=None, environment=os.environ, flags=flags)
    rng = system_random()
    owner = owner_of(config.data)
    check_holds_node(config.data)
    with DataDirectory.open(
        config.data,
        name=config.node.name,
        machine_id=machine_id(),
        founders=(),
        draw_member_id=lambda: rng.getrandbits(64) or 1,
    ) as directory:
        holding = forcing.examine(directory)
        row = {
            "data": str(directory.path),
            "last_index": holding.last.index,
            "last_term": holding.last.term,
            "known_committed_index": holding.committed_index,
            "members": ", ".join(sorted(member.name for member in holding.configuration.members)),
        }
        if not yes:
            emit_one(row, output)
            note(
                f"Everything up to index {holding.last.index} is kept, acknowledged or not. What was acknowledged "
                "behind it, by nodes that are lost now, is lost. If another node of the old cluster still runs or "
                "holds a higher index, stop here and use that one. Nothing was changed; add --yes to go on."
            )
            return EXIT_ERROR
        forcing.force_new_cluster(
            directory,
            draw_cluster_id=lambda: rng.getrandbits(64) or 1,
            peer_address=config.advertised_peer_address,
        )
        give(directory.path, owner)
        emit_one(row | {"cluster_id": hex_id(directory.identity.cluster_id)}, output)
    note(
        "start the node now; the other machines join again: `sudo raftberry invite` here, and there the line that it "
        "prints with --discard-data"
    )
    return EXIT_OK
