"""The cluster's own CA, its certificates, and the proofs of invites. The only place that knows cryptography.

Invariant: a private key is written to a file of this node's data directory, and leaves this package in one way only:
as the PEM that gRPC is given. Called on the loop; an issue takes some 0.2 ms.
"""
