"""All settings: their types, defaults and bounds. ``service.configuration`` reads them.

``pranet serve --help`` and the documented table of settings are generated from the fields below. Names contain units.
"""

import os
import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from model.errors import UserError
from model.files import user_cache
from service.observability.trace_receiver import GRPC, PROTOCOLS, TraceReceiver
from service.processes.group import MOST_PROCESSES

PREFIX = "PRANET_"
MEBIBYTE = 2**20
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s*]+/?", re.IGNORECASE)  # scheme, host and port (RFC 6454, section 6.2)
ROOT_PATH = re.compile(r"(/[\w.~-]+)*")
RECEIVER = re.compile(r"https?://[^/\s]+/?")
MESSAGE_OVERHEAD_BYTES = 64 * 1024  # room for everything in a message beside its picture
MESSAGE_LIMIT = f"MAX_IMAGE_BYTES + {MESSAGE_OVERHEAD_BYTES}"  # of ``max_message_bytes``, for error messages


class SettingsError(UserError):
    """Settings are unknown or invalid; the message lists each one and what to do."""


class Settings(BaseModel):
    """Plain values; other modules take the ones they need as keyword arguments."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(
        "127.0.0.1",
        description="Address to listen on: 0.0.0.0 for all of IPv4 (Docker image), :: for IPv6 too.",
    )
    port: int = Field(8000, ge=0, le=65535, description="REST port; 0 picks a free one.")
    grpc_port: int = Field(8001, ge=0, le=65535, description="gRPC port; 0 picks a free one.")
    processes: int = Field(
        1,
        ge=1,
        le=MOST_PROCESSES,
        description="Server processes that share both ports and the cores; see docs/operations.md.",
    )
    weights: Path | None = Field(None, description="Weights file, safetensors or .pth; by default the bundled one.")
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda|cuda:\d+)$",
        description="auto, cpu, cuda or cuda:N; auto uses a GPU if there is one.",
    )
    engine: Literal["auto", "torch", "openvino"] = Field(
        "auto", description="Engine of the network: torch or openvino; auto uses openvino on an x86-64 CPU."
    )
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = Field(
        "auto",
        description=(
            "auto uses fp16 on CUDA. On a CPU, it uses int8 if there is AVX-512-VNNI but no AMX and the weights have "
            "their calibration; else bf16 if there is AMX or AVX-512-BF16; else fp32. bf16 and int8 on a CPU need "
            "openvino."
        ),
    )
    input_size: int = Field(
        352,
        ge=256,
        le=512,
        multiple_of=32,
        description=(
            "Side of the network's input, pixels: 256 to 512 in steps of 32. Smaller is faster, and may miss small "
            "polyps; the weights are trained for 352."
        ),
    )
    threshold: float = Field(0.5, ge=0, le=1, description="Probability above which a pixel counts as polyp, 0 to 1.")
    max_batch_size: int | None = Field(
        None, ge=1, le=256, description="Largest batch; by default 8 on a CPU and 32 on CUDA."
    )
    max_queue_delay_ms: float = Field(
        0, ge=0, le=1000, description="How long a batch may wait for more frames, from the arrival of its oldest frame."
    )
    max_queue_size: int = Field(256, ge=1, description="Accepted requests that may wait for the device; more get 429.")
    max_image_bytes: int = Field(
        32 * MEBIBYTE,
        ge=1,
        le=1023 * MEBIBYTE,  # messages are cut off at twice this, and gRPC keeps limits as signed 32-bit numbers
        description="Largest encoded image, bytes; larger ones get 413.",
    )
    max_image_pixels: int = Field(
        50_000_000, ge=1, le=178_000_000, description="Largest image by its header, pixels; larger ones get 413."
    )
    max_archive_bytes: int = Field(
        256 * MEBIBYTE,
        ge=1,
        description="Largest archive, or body of type application/dicom, bytes, held in memory; larger ones get 413.",
    )
    max_archives: int = Field(
        2,
        ge=1,
        description="Archives, and large or multi-frame DICOM objects, that may be in progress at once; more get 429.",
    )
    request_timeout_ms: int = Field(
        30_000,
        ge=1,
        description="Longest time from a request's arrival to its answer; then 504. An archive must arrive within it.",
    )
    drain_seconds: float = Field(
        20, ge=0, allow_inf_nan=False, description="How long a graceful shutdown (SIGTERM) waits for accepted requests."
    )
    maps: bool = Field(
        True,
        description="Whether output=maps is available; on first use it loads a second network, 420 to 690 MB.",
    )
    max_streams: int = Field(64, ge=1, description="Video streams that may be open at once; more get 429.")
    stream_window: int = Field(
        4,
        ge=1,
        le=256,
        description="Frames of one stream in progress, or with an answer that the transport has not taken yet.",
    )
    cache_dir: Path | None = Field(
        None,
        description="Folder where an engine caches its network; by default pranet in XDG_CACHE_HOME or ~/.cache.",
    )
    api_tokens_file: Path | None = Field(
        None,
        description="File of bearer tokens (`pranet tokens`), read again when it changes; by default none is needed.",
    )
    rate_limit: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Requests per second for each token; more get 429."
    )
    token_concurrency: int | None = Field(
        None, ge=1, description="Requests and streams that each token may have open at once; more get 429."
    )
    public_metrics: bool = Field(False, description="Whether /metrics needs no token even with API_TOKENS_FILE.")
    tls_cert: Path | None = Field(None, description="Certificate chain of the server, PEM; without it TLS is off.")
    tls_key: Path | None = Field(None, description="Private key of TLS_CERT, PEM, without a passphrase.")
    tls_client_ca: Path | None = Field(
        None, description="Certificate authorities, PEM; every client needs a certificate from one of them (mTLS)."
    )
    cors_origins: str | None = Field(
        None, description="Origins of other web pages that may call the service, comma-separated, or *."
    )
    root_path: str = Field(
        "",
        description="Path under which a proxy serves the service, such as /pranet; the proxy may strip it or not.",
    )
    trusted_proxies: str | None = Field(
        None,
        description=(
            "Addresses or networks of proxies, comma-separated, whose X-Forwarded-Host and X-Forwarded-Proto are "
            "trusted; by default those of no proxy."
        ),
    )
    otlp_endpoint: str | None = Field(
        None,
        description="OTLP receiver of traces, http(s)://host:port; by default OTEL_EXPORTER_OTLP_ENDPOINT. "
        "OTEL_EXPORTER_OTLP_PROTOCOL sets the protocol: grpc (the default) or http/protobuf.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest severity that is logged."
    )
    log_format: Literal["text", "json"] = Field("text", description="text for people, or json: one object per line.")

    @property
    def weights_path(self) -> Path:
        """Path of the weights file to load: the given one, or the one bundled with the package."""
        return self.weights or Path(__file__).parent.parent / "weights" / "pranet.safetensors"

    @property
    def trace_receiver(self) -> TraceReceiver | None:
        """The receiver of traces: the given one, or that of OpenTelemetry's own variables; None sends none.

        Raises:
            SettingsError: OpenTelemetry's variables name a protocol that is not supported.

        """
        disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
        endpoint = self.otlp_endpoint or _from_opentelemetry("ENDPOINT")
        if not endpoint or disabled or os.environ.get("OTEL_TRACES_EXPORTER") == "none":
            return None
        protocol = _from_opentelemetry("PROTOCOL") or GRPC
        if protocol not in PROTOCOLS:
            raise SettingsError(
                f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol}, but traces are sent over {' or '.join(PROTOCOLS)}; "
                "set one of these"
            )
        if protocol == GRPC or (not self.otlp_endpoint and os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")):
            return TraceReceiver(endpoint, protocol)
        return TraceReceiver(f"{endpoint.removesuffix('/')}/v1/traces", protocol)

    @property
    def max_message_bytes(self) -> int:
        """Largest message over gRPC or WebSocket, bytes: a picture and the fields beside it."""
        return self.max_image_bytes + MESSAGE_OVERHEAD_BYTES

    @property
    def cut_off_bytes(self) -> int:
        """Size, bytes, above which gRPC and WebSocket close the connection without reading the message.

        Smaller messages above ``max_message_bytes`` are read, so that the error can say what to do.
        """
        return 2 * self.max_message_bytes

    @property
    def cache_path(self) -> Path | None:
        """Folder of the cache: the given one, or the user's; None if the user has no home."""
        return self.cache_dir or user_cache()

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, given: str | None) -> str | None:
        for each in _listed(given):
            if each != "*" and not ORIGIN.fullmatch(each):
                raise ValueError(
                    f"{each} is not an origin; give, for example, https://viewer.example.org, or * for all"
                )
        return given

    @field_validator("root_path")
    @classmethod
    def _is_path(cls, given: str) -> str:
        if not ROOT_PATH.fullmatch(given):
            raise ValueError(f"{given} is not a path that begins with a slash and ends without one, such as /pranet")
        return given

    @field_validator("otlp_endpoint")
    @classmethod
    def _is_receiver(cls, given: str | None) -> str | None:
        if given is not None and not RECEIVER.fullmatch(given):
            raise ValueError(f"{given} is not the URL of a receiver; give, for example, http://collector:4317")
        return given

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, given: str | None) -> str | None:
        for each in _listed(given):
            try:
                ip_network(each)
            except ValueError:
                raise ValueError(
                    f"{each} is not an address or network; give, for example, 10.0.0.7 or 10.0.0.0/24"
                ) from None
        return given

    @model_validator(mode="after")
    def _needs_each_other(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError(f"set {_named('tls_cert')} and {_named('tls_key')} together, or neither")
        if self.tls_client_ca and not self.tls_cert:
            needed = f"{_named('tls_cert')} and {_named('tls_key')}"
            raise ValueError(f"{_named('tls_client_ca')} needs {needed}; set them too, or unset it")
        if (self.rate_limit or self.token_concurrency) and not self.api_tokens_file:
            limit = "rate_limit" if self.rate_limit else "token_concurrency"
            raise ValueError(f"{_named(limit)} limits each token; set {_named('api_tokens_file')} too, or unset it")
        return self

    @property
    def origins(self) -> list[str]:
        """The origins in ``cors_origins``, without trailing slashes."""
        return [origin.rstrip("/") for origin in _listed(self.cors_origins)]

    @property
    def proxies(self) -> list[IPv4Network | IPv6Network]:
        """The networks in ``trusted_proxies``."""
        return [ip_network(each) for each in _listed(self.trusted_proxies)]


def _listed(text: str | None) -> list[str]:
    """Return the parts of a comma-separated setting."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _named(name: str) -> str:
    return f"{flag(name)} ({variable(name)})"


def variable(name: str) -> str:
    """Return the environment variable of a setting, such as ``PRANET_MAX_BATCH_SIZE``."""
    return PREFIX + name.upper()


def flag(name: str) -> str:
    """Return the command-line flag of a setting, such as ``--max-batch-size``."""
    return "--" + name.replace("_", "-")


def _from_opentelemetry(name: str) -> str | None:
    """Return an OpenTelemetry variable; the one for traces wins (OpenTelemetry specification, OTLP exporter)."""
    return os.environ.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}") or os.environ.get(f"OTEL_EXPORTER_OTLP_{name}")
