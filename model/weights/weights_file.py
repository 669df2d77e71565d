"""Identity of a weights file: its hash, its metadata and a model id, read without PyTorch.

Importing PyTorch takes seconds. A start that finds the converted network in its cache needs only the hash, so it
never loads the tensors; ``model.weights.checkpoint`` loads them.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from model.errors import UserError
from model.presence import Presence

MAX_BYTES = 2**30  # of a weights file; the published ones have 125 MiB
LENGTH_BYTES = 8  # a safetensors file begins with the length of its header
DIGEST_KEY = "digest"  # in the metadata: SHA-256 of the file, computed with zeros in place of the digest
NO_DIGEST = "0" * 64


class CheckpointError(UserError):
    """A weights file cannot be used; the message names the file and the reason."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"weights file {path}: {reason}")


@dataclass(frozen=True)
class WeightsFile:
    """Identity of a weights file: path, hash and metadata."""

    path: Path
    sha256: str
    metadata: Mapping[str, str]
    presence: Presence | None  # calibration of the presence score, if the file has one

    @property
    def model_id(self) -> str:
        """Short name of the weights that changes with their contents, such as ``pranet-1a2b3c4d``."""
        name = re.sub(r"[^\w.-]+", "-", self.metadata.get("name", "pranet"), flags=re.ASCII)  # for HTTP headers
        return f"{name[:64]}-{self.sha256[:8]}"


def identify(path: Path) -> WeightsFile:
    """Read the identity of a weights file; its tensors are not parsed.

    Raises:
        CheckpointError: the file is missing, empty, too large or damaged, or neither safetensors nor a PyTorch file.

    """
    return of_bytes(path, read(path))


def of_bytes(path: Path, data: bytes) -> WeightsFile:
    """Return the identity of a weights file whose contents are ``data``.

    Raises:
        CheckpointError: the contents are damaged, or neither safetensors nor a PyTorch file.

    """
    metadata = {} if is_torch_file(data) else _metadata(path, data)
    try:
        presence = Presence.from_metadata(metadata)
    except ValueError as error:
        raise CheckpointError(path, f"its presence calibration is malformed ({error})") from error
    return WeightsFile(path, hashlib.sha256(data).hexdigest(), metadata, presence)


def read(path: Path) -> bytes:
    """Read all bytes of a weights file.

    Raises:
        CheckpointError: the file is missing, empty or larger than ``MAX_BYTES``.

    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CheckpointError(path, f"cannot be read ({reason}); check the path and its permissions") from error
    if not data:
        raise CheckpointError(path, "is empty; download or copy it again")
    if len(data) > MAX_BYTES:
        raise CheckpointError(path, f"has more than {MAX_BYTES} bytes, which is too large for PraNet; use another file")
    return data


def sealed(data: bytes) -> bytes:
    """Replace ``NO_DIGEST`` in the metadata of a safetensors file by the file's SHA-256."""
    return data.replace(NO_DIGEST.encode(), hashlib.sha256(data).hexdigest().encode(), 1)


def is_sealed(data: bytes, digest: str) -> bool:
    """Return whether a safetensors file has the contents that the digest in its metadata was made of."""
    return sealed(data.replace(digest.encode(), NO_DIGEST.encode(), 1)) == data


def is_torch_file(data: bytes) -> bool:
    """Return whether PyTorch saved this file: a zip archive, or a bare pickle by old releases."""
    is_safetensors = data[LENGTH_BYTES : LENGTH_BYTES + 1] == b"{"  # whose header's length may begin as a pickle does
    return data[:4] == b"PK\x03\x04" or (data[:1] == b"\x80" and not is_safetensors)


def unreadable(path: Path) -> CheckpointError:
    """Return the error for a file of unknown type."""
    return CheckpointError(path, "is neither a readable safetensors nor a PyTorch file; download or copy it again")


def _metadata(path: Path, data: bytes) -> dict[str, str]:
    try:
        length = int.from_bytes(data[:LENGTH_BYTES], "little")
        metadata = json.loads(data[LENGTH_BYTES : LENGTH_BYTES + length]).get("__metadata__", {})
        metadata = {str(key): str(value) for key, value in metadata.items()}
    except (ValueError, AttributeError, RecursionError) as error:  # no header, or a malicious one
        raise unreadable(path) from error
    digest = metadata.pop(DIGEST_KEY, None)
    if digest is not None and not is_sealed(data, digest):
        raise CheckpointError(path, "is damaged: its contents do not match its digest; download or copy it again")
    return metadata
