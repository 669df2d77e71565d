"""All settings, read in this one place: environment ``PRANET_*``, then command-line flags of the same names.

``pranet serve --help`` and the table in the README are made from the fields below. Units are in the names.
"""

import argparse
import difflib
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from model.errors import UserError
from service.observability import logs
from service.validation import in_a_sentence, wanted

PREFIX = "PRANET_"
KUBERNETES_PREFIXES = (PREFIX + "SERVICE_", PREFIX + "PORT_")  # service links of a Service named "pranet"
MEBIBYTE = 2**20

log = logging.getLogger(__name__)
MESSAGE_OVERHEAD_BYTES = 64 * 1024  # everything in a message beside its picture


class SettingsError(UserError):
    """One or more settings are unknown or invalid; the message lists each and what to do."""


class Settings(BaseModel):
    """Plain values; everyone else takes what they need as keyword arguments."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="Address that REST and gRPC listen on (0.0.0.0 in the image).")
    port: int = Field(8000, ge=0, le=65535, description="REST port; 0 picks a free one.")
    grpc_port: int = Field(8001, ge=0, le=65535, description="gRPC port; 0 picks a free one.")
    weights: Path | None = Field(None, description="Weights file, safetensors or .pth; the bundled one by default.")
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|cuda|cuda:\d+)$", description="auto, cpu, cuda or cuda:N; auto takes a GPU if any."
    )
    engine: Literal["auto", "torch", "openvino"] = Field(
        "auto", description="What runs the network: torch or openvino; auto takes openvino on an x86-64 CPU."
    )
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = Field(
        "auto",
        description=(
            "auto takes fp16 on CUDA, bf16 on a CPU with AMX or AVX-512-BF16, else fp32; on a CPU, bf16 and int8 need "
            "openvino."
        ),
    )
    threshold: float = Field(0.5, gt=0, lt=1, description="Probability above which a pixel is polyp, 0 to 1.")
    max_batch_size: int | None = Field(None, ge=1, le=256, description="Largest batch; 8 on CPU and 32 on CUDA.")
    max_queue_delay_ms: float = Field(
        0, ge=0, le=1000, description="How long a batch may wait for more, from its oldest frame's arrival."
    )
    max_queue_size: int = Field(256, ge=1, description="Requests accepted and not yet on the device; more get 429.")
    max_image_bytes: int = Field(32 * MEBIBYTE, ge=1, description="Largest encoded image, bytes; more get 413.")
    max_image_pixels: int = Field(
        50_000_000, ge=1, le=178_000_000, description="Most pixels that an image may declare; more get 413."
    )
    max_archive_bytes: int = Field(
        256 * MEBIBYTE, ge=1, description="Largest archive for /segment/batch, bytes, held in memory; more get 413."
    )
    max_archives: int = Field(2, ge=1, description="Archives received or at work; more get 429.")
    request_timeout_ms: int = Field(30_000, ge=1, description="Time from a request's arrival to its answer; then 504.")
    drain_seconds: float = Field(20, ge=0, description="How long SIGTERM waits for accepted requests.")
    maps: bool = Field(True, description="Whether output=maps is answered; it loads a second network, some 130 MB.")
    max_streams: int = Field(64, ge=1, description="Video streams that may be open; more get 429.")
    stream_window: int = Field(
        4, ge=1, le=256, description="Frames of one stream that may be worked on or hold an answer not yet taken."
    )
    cache_dir: Path | None = Field(
        None, description="Where an engine keeps what it makes of the weights; the user's cache by default."
    )
    api_tokens_file: Path | None = Field(
        None, description="File of bearer tokens (`pranet tokens`), followed when it changes; without one all may call."
    )
    rate_limit: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Requests a second for each token; more get 429."
    )
    token_concurrency: int | None = Field(
        None, ge=1, description="Requests and streams that a token may have open at once; more get 429."
    )
    public_metrics: bool = Field(False, description="Whether /metrics answers without a token where others need one.")
    tls_cert: Path | None = Field(None, description="Certificate chain of REST and gRPC, PEM; TLS is off without it.")
    tls_key: Path | None = Field(None, description="Its private key, PEM, without a passphrase.")
    tls_client_ca: Path | None = Field(
        None, description="Authorities, PEM, of which every client must have a certificate (mTLS)."
    )
    cors_origins: str | None = Field(
        None, description="Origins of other pages that may call, comma-separated, or *; none by default."
    )
    otlp_endpoint: str | None = Field(
        None,
        pattern=r"^https?://[^/\s]+/?$",
        description="OTLP receiver of traces over gRPC, http(s)://host:port; OTEL_EXPORTER_OTLP_ENDPOINT by default.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severity that is logged."
    )
    log_format: Literal["text", "json"] = Field("text", description="Lines for people, or one JSON object a line.")

    @property
    def weights_path(self) -> Path:
        """The weights file to load: the given one, or the one that comes with the package."""
        return self.weights or Path(__file__).parent.parent / "weights" / "pranet.safetensors"

    @property
    def traces_endpoint(self) -> str | None:
        """Where traces go: the given receiver, or the one that OpenTelemetry's own variables name; None: nowhere.

        Raises:
            SettingsError: OpenTelemetry's variables ask for another protocol than gRPC.

        """
        disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
        endpoint = self.otlp_endpoint or _from_opentelemetry("ENDPOINT")
        if not endpoint or disabled or os.environ.get("OTEL_TRACES_EXPORTER") == "none":
            return None
        if (protocol := _from_opentelemetry("PROTOCOL")) not in (None, "grpc"):
            raise SettingsError(
                f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol}, but traces go over grpc only: leave it unset, and name "
                "the receiver's gRPC port, usually 4317"
            )
        return endpoint

    @property
    def max_message_bytes(self) -> int:
        """The largest message over gRPC or WebSocket: a picture, and what stands beside it."""
        return self.max_image_bytes + MESSAGE_OVERHEAD_BYTES

    @property
    def cut_off_bytes(self) -> int:
        """From which size on gRPC and WebSocket themselves end a connection, unread and without a reason of ours."""
        return 2 * self.max_message_bytes

    @property
    def cache_path(self) -> Path | None:
        """The given cache, or ``pranet`` in the user's (XDG Base Directory); None where the user has no home."""
        try:
            return self.cache_dir or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pranet"
        except RuntimeError:
            return None

    @model_validator(mode="after")
    def _needs_each_other(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("TLS_CERT and TLS_KEY are needed together; give both, or neither")
        if self.tls_client_ca and not self.tls_cert:
            raise ValueError("TLS_CLIENT_CA needs TLS_CERT and TLS_KEY; give them too, or leave it out")
        if (self.rate_limit or self.token_concurrency) and not self.api_tokens_file:
            raise ValueError("RATE_LIMIT and TOKEN_CONCURRENCY are of a token, and need API_TOKENS_FILE; name that too")
        return self

    @property
    def origins(self) -> list[str]:
        """The origins of ``cors_origins``."""
        return [origin.strip().rstrip("/") for origin in (self.cors_origins or "").split(",") if origin.strip()]


def load(environ: Mapping[str, str], flags: Mapping[str, Any]) -> tuple[Settings, list[str]]:
    """Merge environment and command-line flags (flags win); return the settings and warnings to log.

    Raises:
        SettingsError: a name is unknown or a value invalid.

    """
    values, warnings = _from_environment(environ)
    values.update({name: value for name, value in flags.items() if value is not None})
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError("\n".join(_explain(fault, values, flags) for fault in error.errors())) from error
    return settings, warnings


def add_flags(parser: argparse.ArgumentParser, names: Iterable[str] | None = None) -> None:
    """Add a flag for each named setting (all by default), such as ``--max-batch-size``."""
    group = parser.add_argument_group("settings", "each can also be given in the environment, as PRANET_NAME")
    for name in names or Settings.model_fields:
        field = Settings.model_fields[name]
        text = f"{in_a_sentence(str(field.description))} (default: {default_text(field)})".replace("%", "%%")
        group.add_argument(flag(name), dest=name, metavar="VALUE", help=text)


def from_command_line(arguments: argparse.Namespace) -> Settings:
    """Merge the environment and the parsed flags, set up logging, and log what is odd.

    Raises:
        SettingsError: a name is unknown or a value invalid.

    """
    flags = {name: value for name, value in vars(arguments).items() if name in Settings.model_fields}
    settings, warnings = load(os.environ, flags)
    logs.configure(settings.log_level, settings.log_format)
    for warning in warnings:
        log.warning("%s", warning)
    return settings


def markdown_table() -> str:
    """Return the table of settings that stands in the README."""
    rows = ["| variable, flag | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        rows.append(f"| `{variable(name)}`, `{flag(name)}` | {default_text(field)} | {field.description} |")
    return "\n".join(rows)


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return PREFIX + name.upper()


def flag(name: str) -> str:
    """Return the command-line flag of a setting."""
    return "--" + name.replace("_", "-")


def default_text(field: FieldInfo) -> str:
    """Say a default in words."""
    return "none" if field.default is None else str(field.default)


def _from_opentelemetry(name: str) -> str | None:
    """Return one of OpenTelemetry's own variables, the one for traces first (its specification, OTLP exporter)."""
    return os.environ.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}") or os.environ.get(f"OTEL_EXPORTER_OTLP_{name}")


def _from_environment(environ: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    values: dict[str, Any] = {}
    warnings: list[str] = []
    for key in sorted(key for key in environ if key.startswith(PREFIX)):
        name = key.removeprefix(PREFIX).lower()
        if key.startswith(KUBERNETES_PREFIXES) or (name == "port" and "://" in environ[key]):
            warnings.append(f"{key} looks like a Kubernetes service link and is ignored (enableServiceLinks: false)")
        elif name in Settings.model_fields:
            if environ[key]:  # an empty variable is an unset one, as compose files make them
                values[name] = environ[key]
        else:
            known = [variable(field) for field in Settings.model_fields]
            nearest = difflib.get_close_matches(key, known, n=1, cutoff=0)
            raise SettingsError(f"{key} is not a setting; did you mean {nearest[0]}?")
    return values, warnings


def _explain(fault: Any, values: Mapping[str, Any], flags: Mapping[str, Any]) -> str:
    if not fault["loc"]:
        return str(fault["msg"]).removeprefix("Value error, ")
    name = str(fault["loc"][0])
    given = variable(name) if flags.get(name) is None else flag(name)
    right, meaning = wanted(fault, Settings), in_a_sentence(str(Settings.model_fields[name].description))
    return f"{given} is {values[name]!r}, but {right}" + ("" if meaning in right else f" ({meaning})")
