"""The gRPC interface: server, servicer, interceptors and messages."""
