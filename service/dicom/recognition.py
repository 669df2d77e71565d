"""Takes pictures out of DICOM objects wherever one picture is expected; pydicom is imported only for an object."""

from pranet_client.pictures import Picture
from service.dicom import availability
from service.dicom.detection import is_object
from service.frames import codec


def unpacked(data: bytes, max_pixels: int) -> Picture:
    """Return the picture in a DICOM object of a single frame, and anything else as it is.

    Raises:
        ServiceError: the object is refused.

    """
    if not is_object(data):
        return data
    availability.require()
    from service.dicom import study

    return study.only_frame(data, max_pixels)


def size(data: bytes, max_pixels: int) -> tuple[int, int]:
    """Return width and height of an encoded picture, also of a DICOM object, from its header.

    Raises:
        ServiceError: the header is refused.

    """
    if not is_object(data):
        return codec.size(data, max_pixels)
    availability.require()
    from service.dicom import study

    header = study.read(data, max_pixels).dataset
    return header.Columns, header.Rows
