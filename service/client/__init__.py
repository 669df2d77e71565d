"""A client in Python for REST and for video streams over gRPC."""
