"""The Storage SCP (PS3.4, annex B): keeps each object that a peer sends in the spool, before it reports success."""

import filecmp
import logging
import os
import ssl
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSTransferSyntaxes,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
    VideoEndoscopicImageStorage,
    VideoPhotographicImageStorage,
    VLEndoscopicImageStorage,
    VLPhotographicImageStorage,
)
from pynetdicom import AE, _config, dimse_messages, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made when the module is imported

from model.errors import UserError
from service.access.listening import why
from service.dicom import seg, study, video
from service.errors import ServiceError, UndecodableImage
from service.pacs.metrics import RECEIVED, REFUSED, NodeMetrics
from service.pacs.parts import Parts
from service.pacs.spool import Spool, sync

log = logging.getLogger(__name__)

CLASSES = (
    VLEndoscopicImageStorage,
    VideoEndoscopicImageStorage,
    VLPhotographicImageStorage,
    VideoPhotographicImageStorage,
    SecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
)
SYNTAXES = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    *JPEGLSTransferSyntaxes,
    *JPEG2000TransferSyntaxes,
    RLELossless,
    *sorted(video.SYNTAXES),
)
# PS3.4, B.2.3: statuses of C-STORE.
SUCCESS, OUT_OF_RESOURCES, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000
COMMENT_LENGTH = 64  # characters of an ErrorComment, as its value representation LO allows
MAX_ASSOCIATIONS = 10
NETWORK_SECONDS = 60.0  # after which a silent peer is cut off


class ReceiverError(UserError):
    """The address cannot be listened on."""


class Receiver:
    """Receives objects inside a ``with`` block, and calls ``arrived`` in another thread after each association.

    Args:
        spool: where objects are kept.
        arrived: is told that ``spool.received()`` may have more.
        ae_title: the AE title that peers must call.
        callers: the AE titles of the peers that may store; empty for any.
        max_bytes: of an object.
        max_pixels: of a frame.
        metrics: count what comes.

    """

    def __init__(
        self,
        spool: Spool,
        arrived: Callable[[], object],
        *,
        ae_title: str,
        callers: Sequence[str],
        max_bytes: int,
        max_pixels: int,
        metrics: NodeMetrics,
    ) -> None:
        self._spool, self._arrived = spool, arrived
        self._max_pixels, self._metrics = max_pixels, metrics
        self._parts = Parts(spool.parts, max_bytes)
        self._folders: dict[Association, Path] = {}
        self._waiting: set[Association] = set()  # they have ended, and their folders wait for the disk
        self._lock = threading.Lock()
        self._reading = threading.Lock()  # one object in memory at a time
        self._before = _config.STORE_RECV_CHUNKED_DATASET, dimse_messages.NamedTemporaryFile  # type: ignore[attr-defined]
        self._entity = AE(ae_title)
        self._entity.require_called_aet = True
        self._entity.require_calling_aet = list(callers)
        self._entity.maximum_associations = MAX_ASSOCIATIONS
        self._entity.network_timeout = NETWORK_SECONDS
        self._entity.add_supported_context(Verification)
        for sop_class in CLASSES:
            self._entity.add_supported_context(sop_class, list(SYNTAXES))

    def listen(self, host: str, port: int, tls: ssl.SSLContext | None) -> int:
        """Start to receive; return the port, which the system chooses for 0.

        Raises:
            ReceiverError: the address cannot be listened on.

        """
        _write_objects_to(True, self._parts.make)
        handlers: list[Any] = [
            (evt.EVT_CONN_OPEN, _opened),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_CONN_CLOSE, self._ended),
            (evt.EVT_REJECTED, self._rejected),
        ]
        try:
            server = self._entity.start_server((host, port), block=False, ssl_context=tls, evt_handlers=handlers)
        except OSError as error:
            raise ReceiverError(
                f"port {port} of {host} cannot be opened ({why(error)}); choose another --dicom-port, or --host"
            ) from error
        assert server is not None  # it is None for a server that blocks
        return int(server.server_address[1])

    def stop(self) -> None:
        """Abort open associations: their peers have no success of what was not kept, and send it again."""
        self._entity.shutdown()
        _write_objects_to(*self._before)
        with self._lock:
            folders, self._folders = list(self._folders.values()), {}
        for folder in folders:
            self._spool.end(folder)

    def _store(self, event: Event) -> Dataset | int:
        uid = UID(str(event.request.AffectedSOPInstanceUID))  # type: ignore[union-attr]  # of a C-STORE
        path = event.dataset_path
        try:
            self._keep(event.assoc, uid, path)
            self._metrics.objects.labels(RECEIVED).inc()
        except ServiceError as error:
            self._metrics.objects.labels(REFUSED).inc()
            log.warning("refused an object of %s: %s", _peer(event.assoc), error)
            return _failure(CANNOT_UNDERSTAND, str(error))
        except OSError as error:
            self._metrics.objects.labels(REFUSED).inc()
            log.error("an object of %s cannot be kept: %s", _peer(event.assoc), error.strerror)
            return _failure(OUT_OF_RESOURCES, f"the spool cannot be written: {error.strerror}")
        return SUCCESS

    def _keep(self, association: Association, uid: UID, path: Path) -> None:
        self._parts.check(path)
        with path.open("rb") as file:
            with self._reading:
                seg.check([study.read(file.read(), self._max_pixels).dataset])
            if not uid.is_valid:  # it becomes the name of a file
                raise UndecodableImage("the SOP Instance UID is not valid; send a valid one")
            os.fsync(file.fileno())
        self._compare(path, self._folders.get(association), uid)
        with self._lock:
            self._parts.check(path)  # until now, its association may end
            folder = self._folders.get(association) or self._spool.begin()
            self._folders[association] = folder
            path.rename(folder / f"{uid}.dcm")
        sync(folder)

    def _compare(self, path: Path, folder: Path | None, uid: UID) -> None:
        """Refuse an object that would replace another one of its association, which the peer was told is kept."""
        kept = folder / f"{uid}.dcm" if folder else None
        if kept is not None and kept.exists() and not filecmp.cmp(path, kept, shallow=False):
            raise UndecodableImage("another object has this SOP Instance UID; give each its own")

    def sweep(self) -> None:
        """End associations whose thread is dead, and delete what has arrived of their objects.

        A message that breaks the rules of DICOM ends the thread of pynetdicom that reads it; the peer is told nothing.
        """
        with self._lock:
            dead = [association for association in self._folders if not association.dul.is_alive()]
        for association in dead:
            connection = association.dul.socket
            waits = association in self._waiting
            if not waits and connection is not None and connection.socket is not None:
                log.error("an association of %s broke off inside a message", _peer(association))
                connection.close()
            self._end(association)
        self._parts.give_up()

    def _ended(self, event: Event) -> None:
        try:
            self._end(event.assoc)
        except OSError as error:  # the next sweep tries again
            log.error("objects of %s wait for the disk of the spool: %s", _peer(event.assoc), error.strerror)

    def _end(self, association: Association) -> None:
        with self._lock:
            self._parts.give_up(association.dul)
            folder = self._folders.pop(association, None)
        if folder is not None:
            try:
                self._move_on(folder, _peer(association))
            except OSError:
                with self._lock:
                    self._folders[association] = folder
                    self._waiting.add(association)
                raise
            with self._lock:
                self._waiting.discard(association)
            self._arrived()

    def _move_on(self, folder: Path, peer: str) -> None:
        try:
            number = len(list(folder.iterdir()))
        except FileNotFoundError:
            if not folder.parent.exists():
                raise  # the disk is away, and may come back
            log.error("objects of %s are lost, since %s was deleted; send them again", peer, folder)
            return
        self._spool.end(folder)
        log.info("objects received: %d, of %s", number, peer)

    def _rejected(self, event: Event) -> None:
        wanted = event.assoc.requestor.primitive
        called = wanted.called_ae_title if wanted else "?"
        log.warning("rejected an association of %s, which called %s", _peer(event.assoc), called)


def _write_objects_to(files: bool, make: Callable[..., Any]) -> None:
    """Let pynetdicom write objects to files as they arrive, or hold them in memory; it has no option for the files."""
    _config.STORE_RECV_CHUNKED_DATASET, dimse_messages.NamedTemporaryFile = files, make  # type: ignore[attr-defined]


def _opened(event: Event) -> None:
    """Limit the time of each read and write: pynetdicom would wait for ever inside a message, and for a handshake."""
    event.assoc.dul.socket.socket.settimeout(NETWORK_SECONDS)  # type: ignore[union-attr]


def _peer(association: Association) -> str:
    requestor = association.requestor
    return f"{requestor.ae_title or '?'} at {requestor.address}"


def _failure(status: int, comment: str) -> Dataset:
    answer = Dataset()
    answer.Status = status
    answer.ErrorComment = comment[:COMMENT_LENGTH]
    return answer
