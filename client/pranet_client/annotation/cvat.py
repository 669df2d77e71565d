"""An auto-annotation function for CVAT: its command line or agent runs it on the frames of a task.

    cvat-cli task auto-annotate 7 --function-module pranet_client.annotation.cvat -p server=str:http://127.0.0.1:8000

It needs the extra ``cvat`` of this package.
"""

import logging
from pathlib import Path

import cvat_sdk.auto_annotation as cvataa
from cvat_sdk.masks import encode_mask
from cvat_sdk.models import LabeledShapeRequest
from PIL import Image

from pranet_client.annotation.regions import Region, regions, simplified
from pranet_client.answers import Segmentation
from pranet_client.async_client import DEFAULT_URL
from pranet_client.client import Client
from pranet_client.credentials import Access
from pranet_client.errors import InvalidInput, RequestFailed

LABEL_ID = 0  # of the function; CVAT finds the label of the task by its name
OF_THE_PICTURE = (413, 415, 422)  # statuses that say that this picture cannot be segmented, and others may

log = logging.getLogger(__name__)


def create(
    server: str = DEFAULT_URL,
    label: str = "polyp",
    token_file: str = "",
    ca_file: str = "",
    cert_file: str = "",
    key_file: str = "",
) -> "Polyps":
    """Return the function; CVAT calls this with the values of its options ``-p``.

    Args:
        server: the REST address of the service.
        label: the name that polyps have in the task.
        token_file: file with the token, if the server requires one.
        ca_file: PEM file of the authorities to trust.
        cert_file: PEM file of the client's certificate, if the server requires one.
        key_file: PEM file of its private key.

    Raises:
        OSError: the token cannot be read.
        TlsError: a certificate, key or authority file cannot be used.

    """
    token = Path(token_file).read_text().strip() if token_file else None
    ca, cert, key = (Path(name) if name else None for name in (ca_file, cert_file, key_file))
    return Polyps(Client(server, access=Access(token, ca, cert, key)), label)


class Polyps:
    """Finds the polyps of a frame; each is a mask, or a polygon if the user wants that."""

    def __init__(self, client: Client, label: str) -> None:
        self._client = client
        self.spec = cvataa.DetectionFunctionSpec(labels=[cvataa.label_spec(label, LABEL_ID, type="mask")])

    def detect(self, context: cvataa.DetectionFunctionContext, image: Image.Image) -> list[LabeledShapeRequest]:
        """Return the polyps of one frame, largest first.

        A frame that the service cannot read gets none, and is named in the log: CVAT uploads nothing before the last
        frame, so an error would lose the polyps of all others.

        Raises:
            RequestFailed: the service refused the request for another reason, or cannot be reached.

        """
        try:
            answer = self._client.segment(image)
        except (InvalidInput, RequestFailed) as error:
            if isinstance(error, RequestFailed) and error.status not in OF_THE_PICTURE:
                raise
            log.warning("%s is left without annotations: %s", context.frame_name, error)
            return []
        return shapes(answer, context.conf_threshold or 0.0, polygons=context.conv_mask_to_poly)


def shapes(answer: Segmentation, least: float = 0.0, *, polygons: bool = False) -> list[LabeledShapeRequest]:
    """Return the polyps whose mean probability is at least ``least``, as CVAT takes them."""
    return [
        _polygon(region) if polygons else cvataa.mask(LABEL_ID, encode_mask(region.mask))
        for region in regions(answer)
        if region.polyp.mean_probability >= least
    ]


def _polygon(region: Region) -> LabeledShapeRequest:
    outline = simplified(region.polyp.polygon)
    return cvataa.polygon(LABEL_ID, [float(coordinate) for corner in outline for coordinate in corner])
