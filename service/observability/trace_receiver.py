"""Where traces go, and over which protocol (OpenTelemetry specification, OTLP exporter)."""

from typing import NamedTuple

GRPC, HTTP = "grpc", "http/protobuf"
PROTOCOLS = (GRPC, HTTP)


class TraceReceiver(NamedTuple):
    """An OTLP receiver, such as a collector."""

    url: str  # http(s)://host:port for gRPC, with the path for HTTP
    protocol: str  # one of ``PROTOCOLS``
