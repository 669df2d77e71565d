"""The gRPC interface: server, servicer, interceptor and messages."""
