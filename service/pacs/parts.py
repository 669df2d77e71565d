"""Objects that arrive: pynetdicom writes each to a part, a file of the spool, which is renamed once it is whole."""

import contextlib
import errno
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Self

from service.errors import ServiceError, TooManyBytes
from service.pacs.spool import PRIVATE_FILE


class Part:
    """A file in which pynetdicom writes an object, as the handler of ``evt.EVT_C_STORE`` finds it.

    At an error of a file, pynetdicom would end the association without an answer, and leave the file. Here, the error
    is kept for the answer, the file is deleted at once, and what still comes of the object is dropped.

    Args:
        path: of the new file.
        max_bytes: of the object.
        closed: is called when pynetdicom has got the answer.

    """

    def __init__(self, path: Path, max_bytes: int, closed: Callable[[], object]) -> None:
        self.name = str(path)
        self.thread = threading.current_thread()  # of the association; no other one writes
        self.error: OSError | ServiceError | None = None
        self._path, self._max_bytes, self._closed = path, max_bytes, closed
        self._size = 0
        self._file: BinaryIO | None = None
        with self._errors_kept():
            self._file = create(path)

    @property
    def file(self) -> Self:
        """Return what pynetdicom flushes."""
        return self

    def write(self, content: bytes) -> None:
        """Append to the file, if there was no error."""
        if self._file is None:
            return
        self._size += len(content)
        if self._size > self._max_bytes:
            return self.give_up(TooManyBytes(f"it has more than {self._max_bytes} bytes; raise --max-archive-bytes"))
        with self._errors_kept():
            self._file.write(content)

    def flush(self) -> None:
        """Let the file have what was written."""
        with self._errors_kept():
            if self._file is not None:
                self._file.flush()

    def close(self) -> None:
        """End writing; the file has another name if it was kept."""
        self._close()
        self._closed()

    def give_up(self, error: OSError | ServiceError) -> None:
        """Delete the file, and keep the first error."""
        self.error = self.error or error
        with contextlib.suppress(OSError):  # it was never made, or the next start deletes it
            self._path.unlink()
        self._close()

    @contextlib.contextmanager
    def _errors_kept(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.give_up(error)

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):  # of what could not be written
                file.close()


class Parts:
    """The parts of all associations.

    Args:
        folder: where they lie.
        max_bytes: of an object.

    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        self._numbers = itertools.count(1)
        self._open: dict[Path, Part] = {}

    def make(self, **_: object) -> Part:
        """Return a new part, as pynetdicom makes a ``tempfile.NamedTemporaryFile``, which has other options."""
        path = self._folder / f"{next(self._numbers)}.dcm"
        part = self._open[path] = Part(path, self._max_bytes, lambda: self._open.pop(path, None))
        return part

    def check(self, path: Path) -> None:
        """Check that a part is whole.

        Raises:
            OSError: it could not be written, or its association has ended.
            TooManyBytes: it is larger than ``max_bytes``.

        """
        part = self._open.get(path)
        error = part.error if part else ConnectionAbortedError(errno.ECONNABORTED, "the peer has left")
        if error is not None:
            raise error

    def give_up(self, thread: threading.Thread | None = None) -> None:
        """Delete the parts of a thread, whose association has ended, and of threads that are dead."""
        for path, part in list(self._open.items()):
            if part.thread is thread or not part.thread.is_alive():
                self._open.pop(path, None)
                part.give_up(ConnectionAbortedError(errno.ECONNABORTED, "the peer has left"))


def create(path: Path) -> BinaryIO:
    """Create a file that only its owner can read."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE), "wb")
