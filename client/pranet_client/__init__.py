"""The client of a PraNet service: pictures over REST, live video over gRPC.

    from pranet_client import Client

    with Client("http://127.0.0.1:8000") as client:
        mask = client.segment("frame.jpg").mask

Every error that the package raises is a ``ClientError``.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pranet_client.answers import BatchAnswer, Info, Model, Polyp, Presence, Segmentation
    from pranet_client.async_client import AsyncClient
    from pranet_client.client import Client
    from pranet_client.connection import Reply
    from pranet_client.credentials import NO_ACCESS, Access
    from pranet_client.errors import ClientError, InvalidInput, RequestFailed, TlsError
    from pranet_client.pb.pranet.v1.segmentation_pb2 import StreamConfig
    from pranet_client.pictures import ColorMatrix, ColorRange, Picture, PixelFormat, RawPicture, VideoFrame
else:
    # Imported at first use: the service uses some of these modules, and would otherwise spend 94 ms importing httpx.
    _HOMES = {
        "AsyncClient": "async_client",
        "BatchAnswer": "answers",
        "Info": "answers",
        "Model": "answers",
        "Polyp": "answers",
        "Presence": "answers",
        "Segmentation": "answers",
        "Client": "client",
        "Reply": "connection",
        "VideoFrame": "pictures",
        "NO_ACCESS": "credentials",
        "Access": "credentials",
        "ClientError": "errors",
        "InvalidInput": "errors",
        "RequestFailed": "errors",
        "TlsError": "errors",
        "StreamConfig": "pb.pranet.v1.segmentation_pb2",
        "ColorMatrix": "pictures",
        "ColorRange": "pictures",
        "Picture": "pictures",
        "PixelFormat": "pictures",
        "RawPicture": "pictures",
    }

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


__all__ = [
    "NO_ACCESS",
    "Access",
    "AsyncClient",
    "BatchAnswer",
    "Client",
    "ClientError",
    "ColorMatrix",
    "ColorRange",
    "Info",
    "InvalidInput",
    "Model",
    "Picture",
    "PixelFormat",
    "Polyp",
    "Presence",
    "RawPicture",
    "Reply",
    "RequestFailed",
    "Segmentation",
    "StreamConfig",
    "TlsError",
    "VideoFrame",
]
