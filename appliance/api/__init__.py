"""The client API: gRPC services on the client port. Only this package and peers know grpc on the server side.

Every call runs on the asyncio loop thread; nothing here blocks.
"""
