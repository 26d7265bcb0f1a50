"""The gRPC client that the command line uses: rotating endpoints, safe retries, resuming streams.

Invariant: a write is sent again only when it is known not to be applied, or carries producer and sequence.
Foreign errors end here: callers see appliance.errors and appliance.client.failures only.
"""
