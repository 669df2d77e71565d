"""The PraNet service: REST and gRPC over one batched data path."""

from importlib.metadata import version

__version__ = version("pranet-service")
