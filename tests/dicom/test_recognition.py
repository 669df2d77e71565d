"""DICOM as media, archives and DICOMweb hand it over: without a name, media type or preamble; among other objects."""

import base64
import io
import json
import zipfile
from collections.abc import Callable

import pytest
from PIL import Image
from pydicom import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    BasicTextSRStorage,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    MediaStorageDirectoryStorage,
    RTDoseStorage,
    SegmentationStorage,
    generate_uid,
)

from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from service.dicom.detection import is_object
from tests.support.dicom_objects import MASKS, PICTURES, dicom, needs_dicom, segmentation, written
from tests.support.pictures import dice, encoded, mask_of
from tests.support.serving import serving

MASK = MASKS[0]


def bare(implicit: bool) -> bytes:
    """Return an object without preamble and file meta information, as old archives store it."""
    made = dicom(PICTURES[:1])
    made.file_meta = FileMetaDataset()
    buffer = io.BytesIO()
    dcmwrite(buffer, made, implicit_vr=implicit, little_endian=True, enforce_file_format=False)
    return buffer.getvalue()


def cut() -> bytes:
    """Return an object with file meta information, but without a preamble."""
    return written(dicom(PICTURES[:1], JPEGBaseline8Bit))[132:]


def tiff_too() -> bytes:
    """Return an object whose preamble makes it a TIFF too (PS3.10, 7.1)."""
    whole = written(dicom(PICTURES[:1]))
    return b"II*\0\x08\0\0\0" + whole[8:]


OBJECTS: dict[str, Callable[[], bytes]] = {
    "with a preamble": lambda: written(dicom(PICTURES[:1])),
    "compressed": lambda: written(dicom(PICTURES[:1], JPEGBaseline8Bit)),
    "without a preamble": cut,
    "implicit, without meta information": lambda: bare(True),
    "explicit, without meta information": lambda: bare(False),
    "a TIFF too": tiff_too,
}


def related(*objects: bytes) -> tuple[bytes, dict[str, str]]:
    body = (
        b"".join(b"--x\r\nContent-Type: application/dicom\r\n\r\n" + each + b"\r\n" for each in objects) + b"--x--\r\n"
    )
    return body, {"content-type": 'multipart/related; type="application/dicom"; boundary=x'}


@needs_dicom
@pytest.mark.parametrize("name", OBJECTS)
async def test_an_object_is_recognised_however_it_is_sent(name: str) -> None:
    body = OBJECTS[name]()
    related_body, related_headers = related(body)
    async with serving() as it:
        for content, headers in (
            (body, {"content-type": "application/dicom"}),
            (body, {"content-type": "application/octet-stream"}),
            (body, {"content-type": ""}),
            (related_body, related_headers),
        ):
            answer = await it.rest.post("/segment", content=content, headers=headers)
            assert answer.status_code == 200, answer.text
            assert dice(mask_of(answer.content), MASK) > 0.95
        answer = await it.rest.post("/segment", files={"file": ("IM000001", body)})
        assert dice(mask_of(answer.content), MASK) > 0.95
        answer = await it.rest.post("/segment", files={"file": body}, headers={"accept": "application/dicom"})
        assert segmentation(answer.content).NumberOfFrames == 1
        tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(body).decode()]}
        answer = await it.rest.post("/v2/models/pranet/infer", json={"inputs": [tensor], "outputs": [{"name": "mask"}]})
        assert answer.json()["outputs"][0]["shape"] == [1, *MASK.shape], answer.text
        reply = await it.stub.Segment(pb.SegmentRequest(image=body))
        assert dice(mask_of(reply.png), MASK) > 0.95


@needs_dicom
async def test_related_parts_are_an_archive_and_only_one_is_a_picture() -> None:
    one, other = written(dicom(PICTURES[:1])), written(dicom(PICTURES[2:]))
    body, headers = related(one, other)
    async with serving() as it:
        answer = await it.rest.post("/segment/batch", content=body, headers=headers)
        lines = [json.loads(line) for line in answer.text.splitlines()]
        assert [(line["name"], line["status"]) for line in lines] == [("1", 200), ("2", 200)]
        for content, why in (
            (body, "2 parts; send one here"),
            (related(one)[0][:-20], "ends without its last boundary"),
        ):
            refused = await it.rest.post("/segment", content=content, headers=headers)
            assert (refused.status_code, why in refused.json()["detail"]) == (400, True), refused.text


@needs_dicom
async def test_the_fields_of_a_form_say_what_segmentation_is_made_of_an_object_in_it() -> None:
    body = written(dicom([*PICTURES[:1], Image.new("RGB", PICTURES[0].size)]))
    async with serving() as it:
        headers = {"accept": "application/dicom"}
        answer = await it.rest.post("/segment", files={"file": body}, data={"omit_empty": "true"}, headers=headers)
    assert segmentation(answer.content).NumberOfFrames == 1


@needs_dicom
async def test_several_frames_are_answered_however_they_are_sent_but_one_by_one_over_grpc() -> None:
    body = written(dicom(PICTURES))
    async with serving() as it:
        answer = await it.rest.post("/segment", content=body, headers={"content-type": "application/octet-stream"})
        assert [json.loads(line)["status"] for line in answer.text.splitlines()] == [200, 200, 200]
        answer = await it.rest.post("/segment/batch", files={"file": body})
        assert "3 frames, not one" in json.loads(answer.text)["error"]["detail"]


@pytest.mark.parametrize("picture", ["JPEG", "PNG", "TIFF", "BMP", "WEBP"])
def test_no_picture_is_taken_for_an_object(picture: str) -> None:
    assert not is_object(encoded(PICTURES[0], picture))
    assert not is_object(b"")
    assert not is_object(bytes(200))


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def directory() -> bytes:
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    made.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.FileSetID, made.FileSetConsistencyFlag, made.DirectoryRecordSequence = "MEDIUM", 0, []
    return written(made)


def of_class(kind: str) -> bytes:
    made = dicom(PICTURES[:1], SOPClassUID=kind)
    if kind == BasicTextSRStorage:
        del made.PixelData, made.Rows, made.Columns
    return written(made)


@needs_dicom
async def test_a_zip_of_a_medium_is_segmented_picture_by_picture_and_the_rest_is_named() -> None:
    files = {
        "IM000001": written(dicom(PICTURES[:1])),
        "DICOMDIR": directory(),
        "SEG00001": of_class(SegmentationStorage),
        "SR000001": of_class(BasicTextSRStorage),
        "RD000001": of_class(RTDoseStorage),
        "IM000002": written(dicom(PICTURES[2:])),
    }
    async with serving() as it:
        headers = {"content-type": "application/zip"}
        answer = await it.rest.post("/segment/batch", content=zipped(**files), headers=headers)
    lines = {line["name"]: line for line in map(json.loads, answer.text.splitlines())}
    assert [line["status"] for line in lines.values()] == [200, 415, 415, 415, 415, 200]
    assert "directory of a medium" in lines["DICOMDIR"]["error"]["detail"]
    assert "class Segmentation Storage, which is not a picture" in lines["SEG00001"]["error"]["detail"]
    assert "class Basic Text SR Storage, which is not a picture" in lines["SR000001"]["error"]["detail"]
    assert "class RT Dose Storage, which is not a picture" in lines["RD000001"]["error"]["detail"]
