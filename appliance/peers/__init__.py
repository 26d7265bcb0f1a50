"""How nodes reach each other: founding a cluster, then two streams each way, over gRPC.

Order of use: PeerServer.start (the peer port, answering through a FoundingDesk), found_cluster if the data
directory knows no cluster, FoundingDesk.joined, PeerLinks.start. Knows nothing of Raft.
"""

from appliance.peers.credentials import PeerCredentials
from appliance.peers.events import LinkEvents
from appliance.peers.founding import Founder, Founding, FoundingDesk
from appliance.peers.founding_exchange import found_cluster
from appliance.peers.links import PeerLinks
from appliance.peers.server import PeerServer
from appliance.peers.wire import PeerAddress, PeerOptions

__all__ = [
    "Founder",
    "Founding",
    "FoundingDesk",
    "LinkEvents",
    "PeerAddress",
    "PeerCredentials",
    "PeerLinks",
    "PeerOptions",
    "PeerServer",
    "found_cluster",
]
