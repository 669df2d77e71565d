"""Raw frames, as capture cards deliver them."""

import tracemalloc

import av
import numpy as np
import pytest
from PIL import Image, ImageFilter

from model.transforms import Pixels
from pranet_client.pictures import PixelFormat, RawPicture
from service.errors import InvalidParameter, ServiceError, TooManyPixels
from service.frames.codec import to_rgb
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


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (RawPicture(None, 8, 8, 24, bytes(192)), InvalidParameter),
        (RawPicture(PixelFormat.NV12, 7, 8, 8, bytes(96)), InvalidParameter),
        (RawPicture(PixelFormat.NV12, 8, 7, 8, bytes(96)), InvalidParameter),
        (RawPicture(PixelFormat.NV12, 8, 8, 8, bytes(95)), InvalidParameter),
        (RawPicture(PixelFormat.RGB24, 8, 8, 23, bytes(192)), InvalidParameter),
        (RawPicture(PixelFormat.RGB24, 8, 8, 24, bytes(191)), InvalidParameter),
        (RawPicture(PixelFormat.RGB24, 0, 8, 24, bytes(192)), InvalidParameter),
        (RawPicture(PixelFormat.RGB24, 2000, 2000, 6000, b""), TooManyPixels),
    ],
)
def test_a_layout_that_cannot_be_is_refused(raw: RawPicture, error: type[ServiceError]) -> None:
    with pytest.raises(error):
        to_rgb(raw, MAX_PIXELS)
