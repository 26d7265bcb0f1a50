"""gRPC on the asyncio loop: a server that costs little a call. See core.py for why."""

from appliance.rpc.call import EOF, Call, CallOver
from appliance.rpc.server import Immediate, ImmediateStream, Server

__all__ = ["EOF", "Call", "CallOver", "Immediate", "ImmediateStream", "Server"]
