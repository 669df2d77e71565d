"""DICOM objects for tests, made of pictures."""

import io
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
from PIL import Image
from pydicom import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
    VideoEndoscopicImageStorage,
    VLEndoscopicImageStorage,
    generate_uid,
)

from pictures import encoded

SECRETS = ("Doe^Jane", "PID-48213", "Endoskopie Nord")  # what nobody may find in a log
LOSSLESS = (ExplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless)
SYNTAXES = (*LOSSLESS, JPEGBaseline8Bit)


def dicom(pictures: Sequence[Image.Image], syntax: UID = ExplicitVRLittleEndian, **attributes: Any) -> Dataset:
    """Return an object of RGB pictures of one size."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = VLEndoscopicImageStorage, generate_uid()
    made.StudyInstanceUID, made.SeriesInstanceUID = generate_uid(), generate_uid()
    made.PatientName, made.PatientID, made.InstitutionName = SECRETS
    made.PatientBirthDate, made.PatientSex, made.StudyID, made.AccessionNumber = "19700101", "F", "1", "A-48213"
    made.StudyDate, made.StudyTime = datetime(2026, 1, 2).strftime("%Y%m%d"), "101112"
    made.ReferringPhysicianName, made.Modality, made.SeriesNumber, made.InstanceNumber = "", "ES", 1, 1
    made.ImageType, made.Laterality, made.PatientOrientation = ["ORIGINAL", "PRIMARY"], "", ""
    made.Columns, made.Rows = pictures[0].size
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PlanarConfiguration = 3, "RGB", 0
    made.BitsAllocated = made.BitsStored = 8
    made.HighBit, made.PixelRepresentation = 7, 0
    if len(pictures) > 1:
        made.SOPClassUID = VideoEndoscopicImageStorage
        made.NumberOfFrames = len(pictures)
    if syntax == JPEGBaseline8Bit:
        made.PixelData = encapsulate([encoded(each, "JPEG", quality=90) for each in pictures])
        made["PixelData"].VR = "OB"
        made["PixelData"].is_undefined_length = True
        made.file_meta.TransferSyntaxUID = syntax
        made.PhotometricInterpretation = "YBR_FULL_422"
    else:
        made.PixelData = b"".join(np.asarray(each).tobytes() for each in pictures)
        made["PixelData"].VR = "OB"
        if syntax != ExplicitVRLittleEndian:
            made.compress(syntax, generate_instance_uid=False)
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def written(made: Dataset) -> bytes:
    """Return an object's file."""
    buffer = io.BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
