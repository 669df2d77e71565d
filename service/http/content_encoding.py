"""Unpacks bodies that are packed with a content coding (RFC 9110, section 8.4)."""

import zlib

from service.errors import InvalidRequest

# zlib's window bits for each content coding (RFC 9110, section 8.4.1); 16 more means the format of gzip.
CODINGS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
READABLE_CODINGS = "gzip, deflate"
STEP_BYTES = 2**18  # unpacked at a time


class Unpacker:
    """Unpacks a body step by step, so that a few bytes never become many at once."""

    def __init__(self, coding: str) -> None:
        self.packed = b""  # received, and not unpacked yet
        self._coding = coding
        self._zlib = zlib.decompressobj(CODINGS[coding])

    def next(self) -> bytes:
        """Return the next ``STEP_BYTES`` at most; empty if more has to be received first.

        Raises:
            InvalidRequest: the data are damaged.

        """
        try:
            while True:
                if self._zlib.eof and not self.packed:
                    return b""
                if self._zlib.eof:  # gzip may have several members (RFC 1952, section 2.2)
                    self._zlib = zlib.decompressobj(CODINGS[self._coding])
                part = self._zlib.decompress(self.packed, STEP_BYTES)  # without input, what was too much before
                self.packed = self._zlib.unused_data or self._zlib.unconsumed_tail
                if part or not self.packed:
                    return part
        except zlib.error as error:
            raise InvalidRequest(f"the body is not valid {self._coding}; compress it again") from error

    def check_end(self) -> None:
        """Check that the last member is complete.

        Raises:
            InvalidRequest: it is not.

        """
        if not self._zlib.eof:
            raise InvalidRequest(f"the {self._coding} data is incomplete; send the whole body")
