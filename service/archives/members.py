"""The pictures in a zip or in the parts of a multipart form. Each is unpacked only when its turn comes."""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from service.errors import InvalidRequest, TooManyBytes, UndecodableImage, UnsupportedImage
from service.frames.codec import Packed

MAX_RATIO = 8  # of unpacked to packed size; pictures hardly compress, so a higher ratio means other contents
MAX_DIRECTORY_BYTES = 4 * 2**20  # about 40,000 members; each takes 600 bytes of memory
FORKS = "__MACOSX/"  # where macOS puts what belongs to a file and is none itself (AppleDouble)
ENCRYPTED = 0x1  # bit in a member's flags
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others can take gigabytes of memory to unpack
# End of central directory (APPNOTE 4.3.16): signature, disks and counts, size and offset of the directory, length of
# the comment.
END, END_SIGNATURE, ZIP64_SIGNATURE = struct.Struct("<4s4H2LH"), b"PK\5\6", b"PK\6\7"
ZIP64_LOCATOR_BYTES = 20
MAX_COMMENT_BYTES = 2**16 - 1
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError)


@dataclass(frozen=True, slots=True)
class Member:
    """One picture of an archive."""

    index: int  # from 0, in the order of the archive
    name: str
    read: Packed  # returns the picture, or raises ServiceError if this member cannot be read


def from_parts(parts: Iterable[tuple[str, bytes]], max_bytes: int) -> list[Member]:
    """Return the files (name, content) of a multipart form; each may have up to ``max_bytes``.

    Raises:
        InvalidRequest: the form has no file.

    """
    members = [
        Member(index, name, partial(_checked, content, max_bytes)) for index, (name, content) in enumerate(parts)
    ]
    if not members:
        raise InvalidRequest("the multipart form has no file; send each picture as a part with a file name")
    return members


def from_zip(archive: io.BytesIO, max_bytes: int) -> list[Member]:
    """Return the files of a zip; each may have up to ``max_bytes``.

    Raises:
        InvalidRequest: it is not a zip, is damaged, or has no file.
        TooManyBytes: by its directory it would unpack to more than ``MAX_RATIO`` times its size (and to more than
            ``max_bytes``), or it has too many members; nothing was unpacked.

    """
    packed = archive.getbuffer().nbytes
    if not packed:
        raise InvalidRequest("the body is empty; send a zip or a multipart form")
    _check_directory(archive)
    try:
        opened = zipfile.ZipFile(archive)
    except BROKEN as error:
        raise InvalidRequest("the directory of the zip is damaged; create it again") from error
    files = [info for info in opened.infolist() if not (info.is_dir() or info.filename.startswith(FORKS))]
    if not files:
        raise InvalidRequest("the zip contains no file; add the pictures")
    declared = sum(info.file_size for info in files)
    if declared > max(MAX_RATIO * packed, max_bytes):
        raise TooManyBytes(
            f"the zip has {packed} bytes but unpacks to {declared}, over {MAX_RATIO} times as many; do not compress it"
        )
    return [
        Member(index, info.filename, partial(_extract, opened, info, max_bytes)) for index, info in enumerate(files)
    ]


def _check_directory(archive: io.BytesIO) -> None:
    """Refuse a central directory that would fill the memory, before ``zipfile`` reads it."""
    with archive.getbuffer() as whole:
        start = max(0, len(whole) - MAX_COMMENT_BYTES - END.size)
        tail = bytes(whole[start:])
        found = tail.rfind(END_SIGNATURE)
        if found < 0 or found + END.size > len(tail):
            raise InvalidRequest(
                "the body is not a zip, or its end is missing; send a complete zip or a multipart form"
            )
        locator = start + found - ZIP64_LOCATOR_BYTES
        if locator >= 0 and bytes(whole[locator : locator + len(ZIP64_SIGNATURE)]) == ZIP64_SIGNATURE:
            raise InvalidRequest("zip64 is not supported; send archives of fewer than 65,535 pictures")
    *_, directory_bytes, _, comment = END.unpack_from(tail, found)
    if found + END.size + comment != len(tail):
        raise InvalidRequest("the zip is damaged at its end; create it again")
    if directory_bytes > MAX_DIRECTORY_BYTES:
        raise TooManyBytes(
            f"the zip's directory has more than {MAX_DIRECTORY_BYTES} bytes; split it into several archives"
        )


def _checked(content: bytes, max_bytes: int) -> bytes:
    if len(content) > max_bytes:
        raise TooManyBytes.of_image(max_bytes)
    return content


def _extract(archive: zipfile.ZipFile, info: zipfile.ZipInfo, max_bytes: int) -> bytes:
    if info.flag_bits & ENCRYPTED:
        raise UnsupportedImage("the file is encrypted; create the zip without a password")
    if info.compress_type not in METHODS:
        raise UnsupportedImage("the file's compression method is not supported; create the zip with stored or deflate")
    if info.file_size > max_bytes:
        raise TooManyBytes.of_image(max_bytes)
    try:
        with archive.open(info) as file:
            return file.read(info.file_size + 1)  # zipfile stops at the declared size, and verifies the checksum
    except BROKEN as error:
        raise UndecodableImage("the file is damaged in the zip; create the zip again") from error
