"""Damaged pictures and messages, each of them decided by the number of its case."""

import random
import struct
import zlib
from collections.abc import Callable, Sequence

from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from tests.support.cases.pictures import BAD, ODD
from tests.support.pictures import encoded, red_box

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
ODD_PARAMETERS = 0.2  # of the requests
FAULTS_IN_MESSAGE = 0.1  # of the messages, beside those of their pictures
LARGEST = 64 * 1024  # bytes of a mutated picture
ROIS = ("", "full", "auto", "0,0,8,8", "1,1,0,0", "-1,0,5,5", "9" * 40, "0,0,99999999999999999999,1", "\u0664,1,2,3")

Mutation = Callable[[random.Random, bytearray, bytes], None]


def flip(rng: random.Random, data: bytearray, other: bytes) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def overwrite(rng: random.Random, data: bytearray, other: bytes) -> None:
    """Put a number at the edge of its range where a size or an offset may stand."""
    form = rng.choice(("B", "<H", ">H", "<I", ">I"))
    size = struct.calcsize(form)
    at = rng.randrange(max(1, min(len(data), rng.choice((64, len(data)))) - size))
    data[at : at + size] = struct.pack(form, rng.choice(EDGES) & (256**size - 1))


def cut(rng: random.Random, data: bytearray, other: bytes) -> None:
    del data[rng.randrange(len(data)) :]


def remove(rng: random.Random, data: bytearray, other: bytes) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.randint(1, 64)]


def repeat(rng: random.Random, data: bytearray, other: bytes) -> None:
    at = rng.randrange(len(data))
    data[at:at] = data[at : at + rng.randint(1, 256)] * rng.randint(1, 4)


def insert(rng: random.Random, data: bytearray, other: bytes) -> None:
    at = rng.randrange(len(data))
    data[at:at] = rng.randbytes(rng.randint(1, 32))


def splice(rng: random.Random, data: bytearray, other: bytes) -> None:
    """Go on as another picture does."""
    data[rng.randrange(len(data)) :] = other[rng.randrange(len(other)) :]


MUTATIONS: tuple[Mutation, ...] = (flip, flip, overwrite, overwrite, cut, remove, repeat, insert, splice)


def originals() -> list[bytes]:
    """Return one small picture of each kind that is read, and some that are refused."""
    made = [make() for make in ODD.values()] + [make() for make, *_ in BAD.values()]
    made.append(encoded(red_box(16, 16, (2, 2, 9, 9)), "TIFF", compression="tiff_deflate"))
    made.append(encoded(red_box(16, 16, (2, 2, 9, 9)), "WEBP", lossless=True))
    return [image for image in made if image]


def picture(rng: random.Random, sources: Sequence[bytes]) -> bytes:
    """Return a picture with one to four faults; half of the PNGs get checksums that hide them."""
    data = bytearray(rng.choice(sources))
    for _ in range(rng.randint(1, 4)):
        if data:
            rng.choice(MUTATIONS)(rng, data, rng.choice(sources))
    if data[:8] == PNG_SIGNATURE and rng.random() < 0.5:
        _mend_checksums(data)
    return bytes(data[:LARGEST])


def _mend_checksums(data: bytearray) -> None:
    at = len(PNG_SIGNATURE)
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            return
        data[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")
        at = end + 4


def request(rng: random.Random, sources: Sequence[bytes]) -> pb.SegmentRequest:
    """Return a call with a mutated picture and parameters in and out of range."""
    message = pb.SegmentRequest(image=picture(rng, sources), output=rng.choice(range(5)))
    message.depth = rng.choice((0, 8, 16))
    if rng.random() < ODD_PARAMETERS:
        message.roi = rng.choice(ROIS)
        message.output = rng.choice(range(7))
        message.depth = rng.choice((0, 12, 2**32 - 1))
        message.threshold = rng.choice((0, 1, 0.5, -1, 2, float("nan"), float("inf"), 1e-45))
    return message


def frames(rng: random.Random, sources: Sequence[bytes]) -> list[pb.StreamRequest]:
    """Return a stream: a configuration, and frames encoded and raw."""
    config = pb.StreamConfig(policy=rng.choice(range(3)), mask_format=rng.choice(range(4)))
    config.deadline_ms = rng.choice((0, 1e4, 1e300))
    config.smoothing_ms = rng.choice((0, 100))
    config.hysteresis = rng.random() < 0.5
    config.reuse = rng.random() < 0.5
    if rng.random() < ODD_PARAMETERS:
        config.policy = rng.choice(range(4))
        config.roi = rng.choice(ROIS)
        config.deadline_ms = rng.choice((0, -1, float("nan"), float("inf")))
        config.smoothing_ms = rng.choice((-1, 1e9, float("nan")))
    messages = [pb.StreamRequest(config=config)]
    for number in range(rng.randint(0, 5)):
        frame = pb.StreamFrame(frame_id=rng.choice((number, 0, 2**64 - 1)))
        if rng.random() < 0.5:
            frame.capture_time_us = rng.choice((0, number, 2**63 - 1, -(2**63)))
        if rng.random() < 0.5:
            frame.image = picture(rng, sources)
        else:
            raw = frame.raw
            raw.width, raw.height, raw.stride = (rng.choice((0, 1, 2, 8, 17, 2**32 - 1)) for _ in range(3))
            raw.format = rng.choice(range(4))
            raw.data = rng.randbytes(rng.choice((0, 1, 96, 192, 8 * 8 * 3)))
        messages.append(pb.StreamRequest(frame=frame))
    return messages


def serialised(rng: random.Random, message: pb.SegmentRequest | pb.StreamRequest) -> bytes:
    """Write a message down; some with faults in its own bytes."""
    data = bytearray(message.SerializeToString())
    if data and rng.random() < FAULTS_IN_MESSAGE:
        rng.choice((flip, overwrite, cut, remove, insert))(rng, data, b"")
    return bytes(data)
