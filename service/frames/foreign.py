"""Recognises files that are no pictures, but are sent as such, to tell where they belong."""

ZIP = "the file is a zip archive, not a picture; send it alone to POST /segment/batch"
TAR = "the file is a tar archive, not a picture; send its pictures as a zip to POST /segment/batch"
GZIP = "the file is compressed with gzip; unpack it, and send one picture, or several as a zip to POST /segment/batch"
VIDEO = (
    "the file is a video, not a picture; stream its frames, see docs/live-video.md, or run pranet segment on it, with "
    "the suffix of a video"
)
STARTS = {
    b"PK\x03\x04": ZIP,
    b"PK\x05\x06": ZIP,  # an empty one
    b"\x1f\x8b": GZIP,
    b"\x1a\x45\xdf\xa3": VIDEO,  # Matroska and WebM
    b"\x00\x00\x01\xba": VIDEO,  # MPEG program stream
}
ZIP_TYPES = ("application/zip", "application/x-zip-compressed")
TYPES = dict.fromkeys(ZIP_TYPES, ZIP) | {"application/x-tar": TAR, "application/gzip": GZIP, "application/x-gzip": GZIP}
TAR_MAGIC, TAR_AT = b"ustar", 257  # POSIX
BRANDS = (b"iso", b"mp4", b"avc1", b"qt  ", b"M4V", b"3gp", b"MSNV", b"dash")  # of ISO 14496-12; pictures have others
QUICKTIME = (b"moov", b"mdat", b"wide")  # the first box of an old file
TS_PACKET, TS_SYNC = 188, b"\x47"  # of an MPEG transport stream


def kind_of(data: bytes) -> str | None:
    """Return what a file is, by its first bytes, and what to do with it; None if it is nothing known."""
    for start, kind in STARTS.items():
        if data.startswith(start):
            return kind
    if data[TAR_AT : TAR_AT + len(TAR_MAGIC)] == TAR_MAGIC:
        return TAR
    return VIDEO if _is_video(data) else None


def kind_of_type(media_type: str) -> str | None:
    """Return the same by the ``Content-Type`` of a file."""
    return VIDEO if media_type.startswith("video/") else TYPES.get(media_type)


def _is_video(data: bytes) -> bool:
    if data[4:8] == b"ftyp":
        return data[8:12].startswith(BRANDS)
    if data[:4] == b"RIFF":
        return data[8:12] == b"AVI "
    packets = [data[at : at + 1] for at in (0, TS_PACKET, 2 * TS_PACKET)]
    return data[4:8] in QUICKTIME or packets == [TS_SYNC] * 3
