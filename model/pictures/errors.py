"""Why a picture cannot be read. Each message says what is wrong and what to do."""

import struct

from model.errors import UserError

# What Pillow raises for damaged files; EOFError, struct.error and ArithmeticError (an offset beyond 63 bits, a fraction
# of 0) come from TIFF directories, AssertionError from a palette that is missing.
DAMAGED = (
    *(OSError, ValueError, SyntaxError, LookupError, EOFError, TypeError, struct.error, MemoryError),
    *(ArithmeticError, AssertionError),
)


class PictureError(UserError):
    """A picture cannot be read: ``reason`` says why; the message also says what to do."""

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(f"{reason}; {advice}")
        self.reason = reason


class UnknownFormat(PictureError):
    """The bytes do not begin as a format that is read here."""


class TooLarge(PictureError):
    """The header declares more pixels than allowed; nothing was decoded."""


class UnreadablePicture(PictureError):
    """The format is known, but the file is damaged, or of a variant that is not supported."""


def damaged(kind: str, reason: str | Exception, part: str = "it") -> UnreadablePicture:
    """Return the error for damage in transfer or storage, which another copy may not have.

    Args:
        kind: format of the file.
        reason: what is wrong; or what a library raised for ``part``, whose words say nothing to who sent the file.
        part: of the file.

    """
    why = reason
    if isinstance(reason, Exception):
        early = isinstance(reason, (EOFError, struct.error)) or "truncated" in str(reason).lower()
        why = f"{part} {'ends too early' if early else 'cannot be decoded'}"
    return UnreadablePicture(f"the {kind} is damaged or incomplete ({why})", "send it again")


def unsupported(kind: str, variant: str, advice: str) -> UnreadablePicture:
    """Return the error for a file that may be sound, but that this reader does not know."""
    return UnreadablePicture(f"a {kind} with {variant} is not supported", advice)
