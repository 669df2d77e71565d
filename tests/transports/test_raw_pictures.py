"""Raw frames, as capture cards deliver them."""

import json
import struct
import tracemalloc
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image, ImageFilter

from model.transforms import Pixels
from pranet_client.connection import _request
from pranet_client.pictures import ColorMatrix, ColorRange, PixelFormat, RawPicture, VideoFrame
from service.errors import InvalidParameter, ServiceError, TooManyPixels
from service.frames.codec import to_rgb
from service.rest import websocket_messages
from service.rpc import messages
from tests.support.pictures import SAMPLES

MAX_PIXELS = 1_000_000
ROUNDING = 4  # levels: two implementations of BT.601 in fixed point, neither wrong


def padded(rows: Pixels, stride: int) -> bytes:
    """Lay out rows (H, bytes) at a stride, with rubbish in between; the last row comes without."""
    laid = np.full((len(rows), stride), 77, np.uint8)
    laid[:, : rows.shape[1]] = rows
    return laid.tobytes()[: stride * (len(rows) - 1) + rows.shape[1]]


@pytest.mark.parametrize("extra", [0, 6, 64])
def test_rgb24_is_read_whatever_the_stride(extra: int) -> None:
    pixels = np.asarray(Image.open(SAMPLES[0]).convert("RGB"))
    height, width, _ = pixels.shape
    stride = 3 * width + extra
    raw = RawPicture(PixelFormat.RGB24, width, height, stride, padded(pixels.reshape(height, -1), stride))
    assert (np.asarray(to_rgb(raw, MAX_PIXELS)[0]) == pixels).all()


def test_a_single_row_costs_what_it_holds_whatever_stride_it_claims() -> None:
    raw = RawPicture(PixelFormat.RGB24, 2, 1, 2**32 - 1, b"\xff\x00\x00\x00\xff\x00")
    tracemalloc.start()
    try:
        assert np.asarray(to_rgb(raw, MAX_PIXELS)[0]).tolist() == [[[255, 0, 0], [0, 255, 0]]]
        assert tracemalloc.get_traced_memory()[1] < 10**6  # bytes at the most
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("extra", [0, 6, 64])
def test_nv12_is_read_as_ffmpeg_reads_it_whatever_the_stride(extra: int) -> None:
    smooth = Image.open(SAMPLES[0]).convert("RGB").filter(ImageFilter.GaussianBlur(4))  # no edges for chroma to blur
    pixels = np.asarray(smooth.resize((320, 240)))
    nv12 = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="nv12", dst_colorspace="ITU601")
    expected = nv12.reformat(format="rgb24", src_colorspace="ITU601").to_ndarray().astype(int)
    raw = RawPicture(PixelFormat.NV12, 320, 240, 320 + extra, padded(nv12.to_ndarray(), 320 + extra))
    read = np.asarray(to_rgb(raw, MAX_PIXELS)[0]).astype(int)
    assert np.percentile(np.abs(read - expected), 99) <= ROUNDING


# R, G, B of Y'CbCr (120, 90, 150) by the equations of ITU-T H.273
SHADE, TRUTH = (120, 90, 150), {
    (ColorMatrix.BT601, ColorRange.LIMITED): (156, 118, 44),
    (ColorMatrix.BT601, ColorRange.FULL): (151, 117, 53),
    (ColorMatrix.BT709, ColorRange.LIMITED): (161, 117, 41),
    (ColorMatrix.BT709, ColorRange.FULL): (155, 117, 49),
    (ColorMatrix.BT2020, ColorRange.LIMITED): (158, 114, 40),
    (ColorMatrix.BT2020, ColorRange.FULL): (152, 114, 49),
}  # fmt: skip


def shade(form: PixelFormat, rows: int, **colours: Any) -> RawPicture:
    y, cb, cr = SHADE
    if form is PixelFormat.UYVY:
        return RawPicture(form, 4, rows, 8, bytes([cb, y, cr, y]) * 2 * rows, **colours)
    return RawPicture(form, 4, rows, 4, bytes([y]) * 4 * rows + bytes([cb, cr]) * rows, **colours)


@pytest.mark.parametrize("form", [PixelFormat.NV12, PixelFormat.UYVY])
@pytest.mark.parametrize(("named", "colour"), TRUTH.items(), ids=str)
async def test_colours_are_those_of_the_matrix_and_range_on_the_wire(
    form: PixelFormat, named: tuple[ColorMatrix, ColorRange], colour: tuple[int, int, int]
) -> None:
    raw = shade(form, 8, matrix=named[0], range=named[1])
    head = {"format": form, "width": 4, "height": 8, "stride": raw.stride, "matrix": named[0], "range": named[1]}
    text = json.dumps({"frame_id": 0, "raw": head}).encode()
    for source in (
        raw,
        messages.frame(_request(VideoFrame(0, raw, 0.0))).source,
        websocket_messages.unpack(struct.pack("<I", len(text)) + text + raw.data).source,
    ):
        assert isinstance(source, RawPicture)
        assert (np.asarray(to_rgb(source, MAX_PIXELS)[0]) == colour).all()


@pytest.mark.parametrize(
    ("rows", "matrix"),
    [(576, ColorMatrix.BT601), (578, ColorMatrix.BT709), (2158, ColorMatrix.BT709), (2160, ColorMatrix.BT2020)],
)
def test_without_a_matrix_the_rows_say_it_as_in_gstreamer(rows: int, matrix: ColorMatrix) -> None:
    read = np.asarray(to_rgb(shade(PixelFormat.NV12, rows), MAX_PIXELS)[0])
    assert (read == TRUTH[matrix, ColorRange.LIMITED]).all()


@pytest.mark.parametrize(
    ("form", "data", "stride"),
    [(PixelFormat.BGR24, b"\x03\x02\x01\x06\x05\x04", 6), (PixelFormat.RGBA, b"\x01\x02\x03\x00\x04\x05\x06\xff", 8)],
)
def test_the_order_of_the_channels_is_that_of_the_format(form: PixelFormat, data: bytes, stride: int) -> None:
    raw = RawPicture(form, 2, 1, stride, data)
    assert np.asarray(to_rgb(raw, MAX_PIXELS)[0]).tolist() == [[[1, 2, 3], [4, 5, 6]]]


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (RawPicture(None, 8, 8, 24, bytes(192)), InvalidParameter),
        (RawPicture(PixelFormat.NV12, 7, 8, 8, bytes(96)), InvalidParameter),
        (RawPicture(PixelFormat.NV12, 8, 7, 8, bytes(96)), InvalidParameter),
        (RawPicture(PixelFormat.NV12, 8, 8, 8, bytes(95)), InvalidParameter),
        (RawPicture(PixelFormat.UYVY, 7, 8, 16, bytes(128)), InvalidParameter),
        (RawPicture(PixelFormat.UYVY, 8, 8, 15, bytes(128)), InvalidParameter),
        (RawPicture(PixelFormat.RGBA, 8, 8, 31, bytes(256)), InvalidParameter),
        (RawPicture(PixelFormat.RGB24, 8, 8, 23, bytes(192)), InvalidParameter),
        (RawPicture(PixelFormat.RGB24, 8, 8, 24, bytes(191)), InvalidParameter),
        (RawPicture(PixelFormat.RGB24, 0, 8, 24, bytes(192)), InvalidParameter),
        (RawPicture(PixelFormat.RGB24, 2000, 2000, 6000, b""), TooManyPixels),
        (RawPicture(PixelFormat.RGB24, 65536, 1, 196608, bytes(196608)), InvalidParameter),
        (RawPicture(PixelFormat.RGB24, 1, 65536, 3, bytes(196608)), InvalidParameter),
    ],
)
def test_a_layout_that_cannot_be_is_refused(raw: RawPicture, error: type[ServiceError]) -> None:
    with pytest.raises(error):
        to_rgb(raw, MAX_PIXELS)
