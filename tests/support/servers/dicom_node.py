"""``pranet receive`` in this event loop, in front of a fake predictor, and a peer that sends to it."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, dimse_messages

from service.commands.main import parser_of
from service.configuration import from_command_line
from tests.support.dicom_objects import HAS_DICOM, NO_DICOM, PICTURES, dicom
from tests.support.patching import Patches
from tests.support.predictors import PATIENCE, RedPredictor
from tests.support.serving import free_port

if not HAS_DICOM:  # the files whose tests use this are skipped
    pytest.skip(NO_DICOM, allow_module_level=True)

from service.commands import receive

TITLE = "PRANET"


@dataclass(frozen=True)
class Node:
    """A node that runs, and where its objects lie."""

    port: int
    spool: Path
    running: "asyncio.Task[int]"

    async def failed(self) -> list[str]:
        """Return the lines of all reasons, once there is one."""
        async with asyncio.timeout(PATIENCE):
            while not (lines := self._reasons()):  # noqa: ASYNC110 - files
                await asyncio.sleep(0.02)
        return lines

    def _reasons(self) -> list[str]:
        found = sorted((self.spool / "failed").glob("*/reasons.txt"))
        return [line for file in found for line in file.read_text().splitlines()]

    def waiting(self) -> list[str]:
        """Return the names of what the spool has besides its own folders."""
        found = [name for _, _, names in os.walk(self.spool) for name in names]  # as folders come and go
        return sorted(name for name in found if name != ".lock")


@contextlib.asynccontextmanager
async def receiving(
    spool: Path, url: str, patched: Patches, *flags: object, predictor: RedPredictor | None = None
) -> AsyncIterator[Node]:
    """Run the command inside the block; it is stopped as by SIGTERM, but without the end of the process."""
    before = dimse_messages.NamedTemporaryFile
    patched(receive, "load_predictor", lambda settings: predictor or RedPredictor())
    port = free_port()
    words = ["receive", "--spool", spool, "--stow-url", url, "--dicom-port", port, *flags]
    arguments = parser_of(["receive"]).parse_args(list(map(str, words)))
    running = asyncio.create_task(receive._receive(arguments, from_command_line(arguments)))
    try:
        async with asyncio.timeout(PATIENCE):
            while not running.done():
                with contextlib.suppress(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                await asyncio.sleep(0.02)
        if running.done():
            running.result()
        yield Node(port, spool, running)
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        assert dimse_messages.NamedTemporaryFile is before


async def sent(
    port: int, objects: Iterable[Dataset], *, called: str = TITLE, calling: str = "ENDO"
) -> Sequence[Dataset]:
    """Send objects over one association; return the answers, none if the association was refused."""
    return await asyncio.to_thread(_sent, port, list(objects), called, calling)


def _sent(port: int, objects: list[Dataset], called: str, calling: str) -> list[Dataset]:
    entity = AE(calling)
    for sop_class, syntax in dict.fromkeys((each.SOPClassUID, each.file_meta.TransferSyntaxUID) for each in objects):
        entity.add_requested_context(sop_class, syntax)
    association = entity.associate("127.0.0.1", port, ae_title=called)
    if not association.is_established:
        return []
    answers = [association.send_c_store(each) for each in objects]
    association.release()
    return answers


def series() -> list[Dataset]:
    """Return the three pictures, as objects of one series."""
    study, uid = generate_uid(), generate_uid()
    return [
        dicom([picture], StudyInstanceUID=study, SeriesInstanceUID=uid, InstanceNumber=number)
        for number, picture in enumerate(PICTURES, 1)
    ]


def sources(segmentation: Dataset) -> list[str]:
    frames = segmentation.PerFrameFunctionalGroupsSequence
    return [each.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID for each in frames]
