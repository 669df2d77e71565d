"""Writes videos: H.264 in BT.709, with true presentation times, and with masks outlined."""

from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import numpy as np

from model import files
from model.errors import SourceError
from model.transforms import Pixels
from pranet_client.pictures import Picture
from service.commands.video.pyav import load_av, reason
from service.frames import codec
from service.frames.shapes import draw_overlay

BT709 = 1  # matrix, primaries and transfer of ITU-T H.273
LIMITED = 1  # 16 to 235, as FFmpeg numbers ranges
ENCODER = {"preset": "veryfast"}  # a live stream must not wait for its video
MAX_PIXELS = 178_000_000  # of a frame on which outlines are drawn


class VideoWriter:
    """Writes RGB pictures as H.264; use it as ``with``. The first picture sets the size; others are scaled to it.

    Matrix, primaries, transfer and range are tagged: without tags, players guess the matrix from the height.

    Args:
        path: the file; its suffix chooses the container.
        fps: frame rate of the source, frames a second: how long the last picture is shown.
        time_base: the source's unit of time, seconds; None: one frame.
        pixel_aspect: width of a pixel by its height, for players.
        partial: exceptions after which the pictures before are kept; after others, what was there stays.

    Raises:
        SourceError: PyAV is not installed; on entry: the file cannot be written.
        OSError: on exit: the disk is full.

    """

    def __init__(
        self,
        path: Path,
        fps: float,
        time_base: Fraction | None = None,
        *,
        pixel_aspect: Fraction = Fraction(1),
        partial: tuple[type[BaseException], ...] = (),
    ) -> None:
        self._av = load_av()
        self._path = path
        self._partial = partial
        self._pixel_aspect = pixel_aspect
        self._rate = Fraction(fps).limit_denominator(1_001)
        self._time_base = time_base or 1 / self._rate
        self._stream: Any = None
        self._waiting: tuple[Any, int] | None = None  # a picture is encoded once it is known how long it is shown

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            draft = stack.enter_context(files.replacing(self._path, partial=self._partial))
            try:
                self._container = self._av.open(str(draft), "w")
            except (self._av.FFmpegError, ValueError) as error:
                raise SourceError(
                    f"{self._path} cannot be written as video ({reason(error)}); give a path such as out.mp4"
                ) from error
            stack.callback(self._finish)
            self._open = stack.pop_all()
        return self

    def write(self, pixels: Pixels, seconds: float) -> None:
        """Append uint8 RGB pixels (H, W, 3), to be shown from ``seconds`` on, later than those before.

        An odd last row or column is cut off, since H.264 in 4:2:0 needs even sides.
        """
        height, width = pixels.shape[0] & ~1, pixels.shape[1] & ~1
        if self._stream is None:
            self._begin(width, height)
        moment = round(seconds / self._time_base)
        if self._waiting is not None:
            moment = max(moment, self._waiting[1] + 1)
            self._encode(moment - self._waiting[1])
        self._waiting = self._frame(np.ascontiguousarray(pixels[:height, :width])), moment

    def __exit__(self, *exc_info: Any) -> None:
        self._open.__exit__(*exc_info)

    def _finish(self) -> None:
        with self._container:
            if self._waiting is not None:
                self._encode(max(1, round(1 / self._rate / self._time_base)))
                self._container.mux(self._stream.encode())

    def _begin(self, width: int, height: int) -> None:
        self._stream = self._container.add_stream("libx264", rate=self._rate, options=ENCODER)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        context = self._stream.codec_context
        context.time_base = self._time_base
        context.sample_aspect_ratio = self._pixel_aspect
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = LIMITED

    def _frame(self, pixels: Pixels) -> Any:
        reformatter = self._av.video.reformatter
        rounding = reformatter.Interpolation.BILINEAR | reformatter.Interpolation.ACCURATE_RND
        made = self._av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
            self._stream.width,
            self._stream.height,
            "yuv420p",
            dst_colorspace=reformatter.Colorspace.ITU709,
            dst_color_range=reformatter.ColorRange.MPEG,
            interpolation=rounding,
        )
        made.color_primaries = made.color_trc = BT709
        return made

    def _encode(self, duration: int) -> None:
        assert self._waiting is not None
        frame, moment = self._waiting
        frame.pts, frame.time_base, frame.duration = moment, self._time_base, duration
        self._container.mux(self._stream.encode(frame))


class OverlayWriter:
    """Writes every frame of a video with its mask outlined; use it as ``with``. Arguments as ``VideoWriter``."""

    def __init__(
        self,
        path: Path,
        fps: float,
        time_base: Fraction | None = None,
        *,
        pixel_aspect: Fraction = Fraction(1),
        partial: tuple[type[BaseException], ...] = (),
    ) -> None:
        self._video = VideoWriter(path, fps, time_base, pixel_aspect=pixel_aspect, partial=partial)

    def __enter__(self) -> Self:
        self._video.__enter__()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._video.__exit__(*exc_info)

    def add(self, picture: Picture, seconds: float, mask: Pixels | None) -> None:
        """Append a frame.

        Args:
            picture: encoded or raw.
            seconds: when it is shown.
            mask: what to outline, uint8 (H, W), if the picture has this size; None: nothing.

        Raises:
            ServiceError: the picture cannot be decoded.

        """
        pixels = np.asarray(codec.to_rgb(picture, MAX_PIXELS)[0])
        if mask is not None and mask.shape == pixels.shape[:2]:  # not of an earlier picture of another size
            pixels = draw_overlay(pixels, mask)
        self._video.write(pixels, seconds)
