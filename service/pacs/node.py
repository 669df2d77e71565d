"""Moves on what the spool holds: objects to the network, and their Segmentations to the PACS."""

import asyncio
import contextlib
import errno
import io
import logging
import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset, dcmread

from service.dicom import references, seg, study, work
from service.dicom.wanted import Wanted
from service.errors import ServiceError, UndecodableImage
from service.frames.frame import Options
from service.pacs.metrics import REFUSED, STORED, NodeMetrics
from service.pacs.spool import Spool, is_done, objects, why
from service.pacs.stow import Absent, Pacs, Refused
from service.runtime import Service

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds between attempts to reach the PACS
PASSING = frozenset({errno.ENOSPC, errno.EIO, errno.EMFILE})  # errors of the disk or the process, not of one file

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Node:
    """Segments and stores until it is cancelled; then the spool keeps what is not done.

    Args:
        service: segments frames.
        spool: what was received.
        pacs: stores Segmentations.
        options: of every frame.
        wanted: the kind of Segmentation.
        metrics: count what is stored.

    """

    service: Service
    spool: Spool
    pacs: Pacs
    options: Options
    wanted: Wanted
    metrics: NodeMetrics

    async def run(self, arrived: asyncio.Event) -> None:
        """Work each time ``arrived`` is set, and on what the spool holds at the start."""
        made = asyncio.Event()
        arrived.set()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._segment_all(arrived, made))
            tasks.create_task(self._store_all(made))

    async def _segment_all(self, arrived: asyncio.Event, made: asyncio.Event) -> None:
        while True:
            made.set()
            await arrived.wait()
            arrived.clear()
            failed = False
            try:
                folders = await asyncio.to_thread(self.spool.received)
            except OSError as error:
                failed, folders = True, []
                _tell(error, self.spool.path)
            for folder in folders:
                try:
                    await self._segment_or_set_aside(folder)
                except OSError as error:
                    failed = True
                    _tell(error, folder)
                made.set()
            if failed:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LONGEST_WAIT):
                        await arrived.wait()
                arrived.set()

    async def _segment_or_set_aside(self, folder: Path) -> None:
        try:
            await self._segment(folder)
        except OSError:
            raise
        except Exception as error:  # an object that nobody thought of would end the command at every start
            log.exception("an association cannot be segmented")
            await asyncio.to_thread(self._set_aside, folder, error)

    async def _segment(self, folder: Path) -> None:
        """Make the Segmentations of the objects of one association."""
        if is_done(folder):
            return await asyncio.to_thread(self.spool.finish, folder)
        written: dict[str, bytes] = {}
        for group in await asyncio.to_thread(groups, folder, self._max_bytes):
            for files, result in await self._attempts(group):
                if isinstance(result, ServiceError):
                    kept = await asyncio.to_thread(self.spool.fail, files, str(result))
                    log.error("objects that were not segmented: %d; they lie in %s: %s", len(files), kept, result)
                else:
                    written[f"{len(written) + 1}.dcm"] = result.content
                    log.info("objects segmented: %d, with %d frames", len(files), result.frames)
        await asyncio.to_thread(self.spool.segmented, folder, written)

    def _set_aside(self, folder: Path, error: Exception) -> None:
        """Keep the objects of a folder for the operator."""
        if found := objects(folder):
            self.spool.fail(found, f"{type(error).__name__}: {error}")
        self.spool.segmented(folder, {})

    async def _attempts(self, group: list[Path]) -> "list[tuple[list[Path], seg.Written | ServiceError]]":
        """Segment objects together; if that fails, without those that fail alone, too."""
        result = await self._segmentation(group)
        if isinstance(result, seg.Written) or len(group) == 1:
            return [(group, result)]
        alone = [([file], await self._segmentation([file])) for file in group]
        good = [file for (file,), made in alone if isinstance(made, seg.Written)]
        if 1 < len(good) < len(group):
            result = await self._segmentation(good)
            if isinstance(result, seg.Written):
                return [(good, result), *(each for each in alone if not isinstance(each[1], seg.Written))]
        return alone

    async def _segmentation(self, files: list[Path]) -> "seg.Written | ServiceError":
        try:
            found = [await asyncio.to_thread(self._read, file) for file in files]
            return await work.segmentation(
                found,
                self.options,
                self.service.segmenter,
                self.service.archives,
                math.inf,
                seg.Kind(self.wanted.kind),
                omit_empty=self.wanted.omit_empty,
            )
        except ServiceError as error:
            if self.service.readiness.dead.is_set():
                await asyncio.get_running_loop().create_future()  # the command ends, and its restart segments them
            return error

    def _read(self, file: Path) -> study.Study:
        try:
            content = file.read_bytes()
        except OSError as error:
            if error.errno in PASSING:
                raise
            reason = f"the file cannot be read ({error.strerror}); let the user of pranet receive read it"
            raise UndecodableImage(reason) from error
        return study.read(content, self.service.settings.max_image_pixels)

    @property
    def _max_bytes(self) -> int:
        return self.service.settings.max_archive_bytes

    async def _store_all(self, made: asyncio.Event) -> None:
        wait = FIRST_WAIT
        while True:
            made.clear()
            try:
                absent = await self._store(await asyncio.to_thread(self.spool.to_store))
            except OSError as error:
                absent = Absent(why(error, self.spool.path), answered=False)
            if absent is None:
                wait = FIRST_WAIT
                await made.wait()
                continue
            log.warning("Segmentations are not stored: %s; next attempt in %g s", absent, wait)
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)

    async def _store(self, files: Iterable[Path]) -> Absent | None:
        """Store Segmentations; return why some have to wait."""
        absent = None
        for file in files:
            try:
                await self.pacs.store(*await asyncio.to_thread(_with_uid, file))
            except Refused as refusal:
                kept = await asyncio.to_thread(self.spool.refused, file, str(refusal))
                self.metrics.segmentations.labels(REFUSED).inc()
                log.error("the PACS refused a Segmentation, which lies in %s: %s", kept, refusal)
            except Absent as reason:
                absent = reason
                if not reason.answered:
                    break
            except OSError:
                raise
            except Exception as error:  # an operator may have put there what is no Segmentation
                kept = await asyncio.to_thread(
                    self.spool.refused, file, f"it is no Segmentation ({type(error).__name__})"
                )
                self.metrics.segmentations.labels(REFUSED).inc()
                log.error("a file is no Segmentation and lies in %s now", kept)
            else:
                await asyncio.to_thread(self.spool.stored, file)
                self.metrics.segmentations.labels(STORED).inc()
                log.info("the PACS stored a Segmentation")
        return absent


def _tell(error: OSError, place: Path) -> None:
    log.error("%s; next attempt in %g s", why(error, place), LONGEST_WAIT)


def groups(folder: Path, max_bytes: int) -> list[list[Path]]:
    """Return which objects make one Segmentation: those of one series and size, in the order of their numbers.

    Args:
        folder: has the objects.
        max_bytes: of the objects of a group, and so of memory; a larger object is a group of its own.

    """
    heads = {file: _head(file) for file in objects(folder)}
    found: dict[Hashable, list[list[Path]]] = {file: [[file]] for file, head in heads.items() if head is None}
    room: dict[Hashable, tuple[int, int]] = {}
    readable = [(file, head) for file, head in heads.items() if head is not None]
    for file, head in sorted(readable, key=lambda each: work.number_of(each[1])):
        key = tuple(str(head.get(name)) for name in seg.SHARED)
        size, pixels = file.stat().st_size, references.frames(head) * head.Rows * head.Columns
        bytes_left, pixels_left = room.get(key, (0, 0))
        if size > bytes_left or pixels > pixels_left:
            found.setdefault(key, []).append([])
            bytes_left, pixels_left = max_bytes, seg.MAX_PIXELS
        found[key][-1].append(file)
        room[key] = bytes_left - size, pixels_left - pixels
    return [group for each in found.values() for group in each]


def _with_uid(file: Path) -> tuple[bytes, str]:
    content = file.read_bytes()
    return content, str(dcmread(io.BytesIO(content), stop_before_pixels=True).SOPInstanceUID)


def _head(file: Path) -> Dataset | None:
    """Return an object without its pixels; None if an operator put there what is no such object."""
    try:
        head = dcmread(file, stop_before_pixels=True)
        return head if {"Rows", "Columns"} <= set(head.dir()) else None
    except Exception:  # pydicom raises many types of exceptions for damaged files
        return None
