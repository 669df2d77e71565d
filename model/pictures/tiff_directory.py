"""The first directory of a TIFF: what its tags say of the pixels (TIFF 6.0; BigTIFF).

What Pillow makes of the tags, its mode, is not enough: it takes planes of 16 bits for pixels of 8, and 12 bits for 16.
"""

import io
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from PIL.TiffImagePlugin import COMPRESSION_INFO, IFDRational, ImageFileDirectory_v2

from model.pictures.errors import DAMAGED, damaged, unsupported
from model.pictures.limits import MAX_STEPS, too_many_steps

WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
STRIP_OFFSETS, ORIENTATION, SAMPLES, ROWS_PER_STRIP, STRIP_COUNTS = 273, 274, 277, 278, 279
LEAST, MOST, LEAST_TYPED, MOST_TYPED = 280, 281, 340, 341  # MinSampleValue, MaxSampleValue, SMin..., SMax...
PLANAR, PREDICTOR, COLOR_MAP, INK_SET, EXTRA, FORMAT = 284, 317, 320, 332, 338, 339
TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_COUNTS = 322, 323, 324, 325
COEFFICIENTS, SUBSAMPLING, REFERENCE = 529, 530, 532
REAL = (COEFFICIENTS, REFERENCE, LEAST, MOST, LEAST_TYPED, MOST_TYPED)  # tags; others have whole numbers from 0 on
BEYOND = 2**64  # whole numbers
UNLIMITED = 2**32 - 1  # of RowsPerStrip: all rows
MAX_VALUES = 64  # of a tag with some for each sample
UNSIGNED, SIGNED, FLOAT = 1, 2, 3  # SampleFormat
MIN_IS_WHITE, MIN_IS_BLACK, RGB, PALETTE, SEPARATED, YCBCR, CIELAB = 0, 1, 2, 3, 5, 6, 8
COLOURS = {MIN_IS_WHITE: 1, MIN_IS_BLACK: 1, RGB: 3, PALETTE: 1, SEPARATED: 4, YCBCR: 3, CIELAB: 3}
UNASSOCIATED = 2  # ExtraSamples; associated alpha has its colours blended with black already
OTHER = {4: "a transparency mask", 9: "ICCLab", 10: "ITULab", 32803: "a colour filter array", 32844: "LogL",
         32845: "LogLuv", 34892: "linear raw"}  # fmt: skip
CODED = {33003: "JPEG 2000", 33005: "JPEG 2000", 34712: "JPEG 2000", 34661: "JBIG", 34663: "MDI", 34676: "SGI LogLuv",
         34677: "SGI LogLuv", 34887: "LERC", 34892: "lossy JPEG", 50002: "JPEG XL", 22610: "JPEG XR",
         50001: "WebP"}  # fmt: skip
BYTEWISE = frozenset((1, 5, 8, 32773, 32946, 34925, 50000))  # compressions of bytes, whatever the pixels mean
PARTS = (STRIP_OFFSETS, STRIP_COUNTS, TILE_OFFSETS, TILE_COUNTS)
VALUES = (BITS, FORMAT, EXTRA, COEFFICIENTS, SUBSAMPLING, REFERENCE, LEAST, MOST, LEAST_TYPED, MOST_TYPED)
ADVICE = "send 8 or 16 bits per channel, uncompressed, LZW or deflate"


@dataclass(frozen=True)
class Directory:
    """Tags of the first picture. The fields that decide how pixels are read are properties."""

    tags: ImageFileDirectory_v2
    order: str  # of bytes, for struct and NumPy: < or >

    @classmethod
    def of(cls, data: bytes) -> Self:
        """Read the first directory.

        Raises:
            UnreadablePicture: it is damaged, describes pixels that are not supported, or is not the only one.

        """
        big = data[2:4] in (b"+\0", b"\0+")
        order = "<" if data[:2] == b"II" else ">"
        if _entries(data, order, big) > MAX_STEPS:
            raise too_many_steps("TIFF", "tags")
        try:
            tags = ImageFileDirectory_v2(data[: 16 if big else 8])
            stream = io.BytesIO(data)
            stream.seek(tags.next)
            tags._tag_data_limit = len(data)  # directories may not read the same bytes over and over
            tags.next = 0
            tags.load(stream)
        except DAMAGED as error:
            raise damaged("TIFF", error, "its directory") from error
        found = cls(tags, order)
        found._check(len(data))
        return found

    def numbers(self, tag: int, default: tuple[float, ...] = ()) -> tuple[float, ...]:
        """Return the values of a tag."""
        try:
            found = self.tags.get(tag, default)
        except DAMAGED as error:
            raise damaged("TIFF", error, f"tag {tag}") from error
        values = found if isinstance(found, tuple) else (found,)
        if not all(isinstance(value, int | float | IFDRational) for value in values):
            raise damaged("TIFF", f"tag {tag} is not a number")
        try:
            values = tuple(float(value) if isinstance(value, IFDRational) else value for value in values)
        except ZeroDivisionError as error:
            raise damaged("TIFF", f"tag {tag} is a fraction of 0") from error
        if tag in REAL:
            return values
        if wrong := [value for value in values if not 0 <= value < BEYOND or value != int(value)]:
            raise damaged("TIFF", f"tag {tag} is {wrong[0]}")
        return tuple(map(int, values))

    def _count(self, tag: int) -> int:
        """Return how many values a tag has, without reading them."""
        if tag not in self.tags.tagtype:
            return 0
        size, _ = self.tags._load_dispatch[self.tags.tagtype[tag]]
        return len(self.tags._tagdata.get(tag, b"")) // size

    def number(self, tag: int, default: int) -> int:
        """Return the first value of a tag, at most what fits into 32 bits: more means no limit."""
        values = self.numbers(tag, (default,))
        return min(int(values[0]), UNLIMITED) if values else default

    @cached_property
    def size(self) -> tuple[int, int]:
        """Width and height as stored."""
        return self.number(WIDTH, 0), self.number(LENGTH, 0)

    @cached_property
    def orientation(self) -> int:
        """How the stored picture is turned; 1 is upright."""
        return self.number(ORIENTATION, 1)

    @cached_property
    def photometric(self) -> int:
        """PhotometricInterpretation; without one, as few writers leave it out, 0 is black."""
        return self.number(PHOTOMETRIC, MIN_IS_BLACK)

    @cached_property
    def compression(self) -> int:
        """Compression; 1 is none."""
        return self.number(COMPRESSION, 1)

    @cached_property
    def samples(self) -> int:
        """Samples of a pixel."""
        return self.number(SAMPLES, max(1, len(self.numbers(BITS))))

    @cached_property
    def bits(self) -> int:
        """Bits of each sample."""
        return self.number(BITS, 1)

    @cached_property
    def format(self) -> int:
        """SampleFormat; 4, undefined, counts as unsigned."""
        found = self.number(FORMAT, UNSIGNED)
        return UNSIGNED if found == 4 else found

    @cached_property
    def planes(self) -> int:
        """Planes that the samples are stored in."""
        return self.samples if self.number(PLANAR, 1) == 2 else 1

    @cached_property
    def used(self) -> int:
        """Samples of a pixel that are shown: its colours, and alpha that they have to be blended by."""
        return COLOURS[self.photometric] + (self.numbers(EXTRA)[:1] == (UNASSOCIATED,))

    @cached_property
    def subsampling(self) -> tuple[int, int]:
        """Pixels that share a chroma sample, across and down."""
        if self.photometric != YCBCR:
            return 1, 1
        width, height = self.size
        stored = sum(self.numbers(STRIP_COUNTS)) + sum(self.numbers(TILE_COUNTS))
        if SUBSAMPLING not in self.tags and self.compression == 1 and stored >= 3 * width * height:
            return 1, 1  # the default is 2, 2, but whoever forgets the tag does not subsample
        across, down = (*self.numbers(SUBSAMPLING, (2, 2)), 1, 1)[:2]
        return int(across), int(down)

    @cached_property
    def bytewise(self) -> bool:
        """Whether what is compressed are bytes, and not pixels as in JPEG."""
        return self.compression in BYTEWISE

    def _check(self, size: int) -> None:
        for tag, most in (*((part, MAX_STEPS) for part in PARTS), *((tag, MAX_VALUES) for tag in VALUES)):
            if self._count(tag) > most:  # each is a step in Python, here or in Pillow
                if tag in PARTS:
                    raise too_many_steps("TIFF", "strips or tiles", "save it again in larger ones")
                raise damaged("TIFF", f"tag {tag} has more than {MAX_VALUES} values")
        if min(self.size) < 1:
            raise damaged("TIFF", f"its directory declares {self.size[0]}x{self.size[1]} pixels")
        if self.tags.next not in (0, self.tags._offset):
            raise unsupported("TIFF", "more than one picture", "send them one by one")
        if self.compression not in COMPRESSION_INFO or self.compression in CODED:
            name = CODED.get(self.compression, str(self.compression))
            raise unsupported("TIFF", f"the compression {name}", ADVICE)
        if self.photometric not in COLOURS:
            name = OTHER.get(self.photometric, f"the photometric interpretation {self.photometric}")
            raise unsupported("TIFF", name, "send grey, a palette, RGB, YCbCr, CMYK or CIELab")
        if not self.bytewise:
            return  # its pixels are described inside
        self._check_samples()
        self._check_extent(size)

    def _check_samples(self) -> None:
        bits, across_down = self.numbers(BITS, (1,)), self.subsampling
        if len(set(bits)) != 1 or len(set(self.numbers(FORMAT, (1,)))) != 1:
            raise unsupported("TIFF", f"samples of {', '.join(map(str, bits))} bits or of mixed formats", ADVICE)
        if not COLOURS[self.photometric] <= self.samples <= 8:
            raise damaged("TIFF", f"{self.samples} samples a pixel in photometric interpretation {self.photometric}")
        allowed = {UNSIGNED: (*range(1, 17), 32), SIGNED: (8, 16, 32), FLOAT: (16, 32, 64)}.get(self.format, ())
        if self.bits not in allowed:
            kind = {UNSIGNED: "unsigned", SIGNED: "signed", FLOAT: "float"}.get(self.format, f"format {self.format}")
            raise unsupported("TIFF", f"{kind} samples of {self.bits} bits", ADVICE)
        if self.photometric in (PALETTE, SEPARATED, YCBCR, CIELAB) and (self.format != UNSIGNED or self.bits > 16):
            raise unsupported("TIFF", "signed, float or 32-bit samples other than grey and RGB", ADVICE)
        if across_down != (1, 1):
            known = across_down[0] in (1, 2, 4) and across_down[1] in (1, 2, 4)
            if not known or self.bits != 8 or self.planes > 1 or self.samples > 3 or TILE_WIDTH in self.tags:
                raise unsupported("TIFF", "YCbCr subsampled in tiles, planes or other than 8 bits", ADVICE)

    def _check_extent(self, size: int) -> None:
        tiled = TILE_WIDTH in self.tags
        offsets = self.numbers(TILE_OFFSETS if tiled else STRIP_OFFSETS)
        counts = self.numbers(TILE_COUNTS if tiled else STRIP_COUNTS, (size - int(offsets[0]),) if offsets else ())
        for number, (offset, count) in enumerate(zip(offsets, counts, strict=False)):
            if offset + count > size:
                part = f"{'tile' if tiled else 'strip'} {number} ends at byte {offset + count:.0f} of {size}"
                raise damaged("TIFF", part)


def _entries(data: bytes, order: str, big: bool) -> int:
    """Return how many tags the first directory declares; 0 if it is cut off."""
    try:
        (at,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
        return int(struct.unpack_from(order + ("Q" if big else "H"), data, at)[0])
    except (struct.error, OverflowError):
        return 0


def relabelled(data: bytes, order: str, tags: dict[int, tuple[int, ...]]) -> bytes:
    """Return a TIFF with the same data and another directory, at its end (TIFF 6.0, section 2); all values are LONG."""
    start = len(data) + len(data) % 2
    long_values = start + 2 + 12 * len(tags) + 4
    entries, following = b"", b""
    for tag, values in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            packed, following = struct.pack(f"{order}I", long_values + len(following)), following + packed
        entries += struct.pack(f"{order}HHI", tag, 4, len(values)) + packed
    head = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, start)
    directory = struct.pack(f"{order}H", len(tags)) + entries + bytes(4)
    return head + data[8:].ljust(start - 8, b"\0") + directory + following
