"""Copies attributes of the source into a Segmentation; a malformed one does not fail the request.

Text is copied as it is. Values that have one right form are brought into it; those that have none are left out.
"""

import copy
import re
from typing import Any

import highdicom as hd
from pydicom import DataElement, Dataset
from pydicom.config import RAISE
from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag
from pydicom.dataelem import RawDataElement
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag
from pydicom.uid import VLEndoscopicImageStorage
from pydicom.valuerep import validate_value

# Value representations with a form to keep (PS3.5, 6.2); the others are text, or only mean something to their source.
CHECKED = frozenset(("AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI"))
NUMBERS = frozenset(("DS", "IS"))
SEXES = ("M", "F", "O")
SEPARATORS = {
    "DA": re.compile(r"(\d{4})[-./](\d\d)[-./](\d\d)"),
    "TM": re.compile(r"(\d\d):(\d\d)(?::(\d\d(?:\.\d+)?))?"),
}
# Type 2 attributes of the patient and study modules: must be present, but may be empty (PS3.3, C.7.1.1 and C.7.2.1).
MAY_BE_EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
GROUPS = (0x0008, 0x0010, 0x0012, 0x0020, 0x0032, 0x0038, 0x0040)  # with attributes of patient and study
TEXT = frozenset(("LO", "LT", "PN", "SH", "ST", "UC", "UT"))
LARGE = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UN"))
CHARACTER_SET = (
    "SpecificCharacterSet"  # may begin with an empty value, which stands for the default (PS3.3, C.12.1.1.2)
)


def copy_patient_and_study(made: hd.SOPClass, source: Dataset) -> tuple[str, ...]:
    """Copy the attributes of patient and study; return the names of those that had to be left out.

    Dates such as 2026.01.02 and times such as 11:20:00, which old objects have, are written as DICOM does now; codes
    are put into upper case. What must be there (type 2) is there, if empty.
    """
    own = {tag: made.get_item(tag) for tag in made.keys()}  # noqa: SIM118
    verbatim = _text(source)
    taken, spoilt = _taken(source)
    taken.SOPClassUID, taken.SOPInstanceUID = VLEndoscopicImageStorage, made.SOPInstanceUID
    made.copy_patient_and_study_information(taken)
    if CHARACTER_SET in taken:
        made.SpecificCharacterSet = taken.SpecificCharacterSet
    left_out = []
    for tag in [tag for tag in made.keys() if made.get_item(tag) is not own.get(tag)]:  # noqa: SIM118
        if tag in spoilt:
            left_out.append(keyword_for_tag(tag))
            if left_out[-1] not in MAY_BE_EMPTY:
                del made[tag]
        elif tag in verbatim:
            made[tag] = verbatim[tag]
    return tuple(left_out)


def _text(source: Dataset) -> dict[BaseTag, RawDataElement]:
    """Return the elements with text as they were read: pydicom 3.0 would write Chinese (ISO 2022 IR 58) as garbage."""
    found: list[Any] = [source.get_item(tag) for tag in _tags(source)]
    raw = [element for element in found if isinstance(element, RawDataElement)]
    return {each.tag: each._replace(VR=dictionary_VR(each.tag)) for each in raw if dictionary_VR(each.tag) in TEXT}


def _taken(source: Dataset) -> tuple[Dataset, set[BaseTag]]:
    """Return a copy of an object's attributes, and the tags of those that are empty, as they have no right form."""
    made, spoilt = Dataset(), set()
    for tag in _tags(source):
        if dictionary_VR(tag) in LARGE:
            continue
        element = _read(source, tag)
        if element is None or not _mended(element):
            element = DataElement(tag, dictionary_VR(tag), None)
            spoilt.add(tag)
        made.add(element)
    return made, spoilt


def _tags(source: Dataset) -> list[BaseTag]:
    # A Dataset itself iterates over converted elements, and would fail at the first bad one.
    return [tag for tag in source.keys() if tag.group in GROUPS and dictionary_has_tag(tag)]  # noqa: SIM118


def _read(source: Dataset, tag: Any) -> DataElement | None:
    try:
        element: DataElement = source[tag]
        return copy.deepcopy(element)
    except Exception:  # of many types: the value cannot be converted
        return None


def _mended(element: DataElement) -> bool:
    """Bring an element into its right form, with those below it; False if it has none."""
    if element.VR == "SQ":
        return all(_mended(each) for item in element.value or () for each in item)
    if element.VR not in CHECKED or element.keyword == CHARACTER_SET or element.is_empty:
        return True
    several = isinstance(element.value, MultiValue)
    values = [_normal(str(each), element.VR) for each in (element.value if several else [element.value])]
    try:
        for value in values:
            validate_value(element.VR, value, RAISE)
    except ValueError:
        return False
    if element.keyword == "PatientSex" and values[0] not in SEXES:
        return False
    if element.VR not in NUMBERS:
        element.value = values if several else values[0]
    return True


def _normal(value: str, kind: str) -> str:
    value = value.strip(" \0")
    if kind in SEPARATORS and (found := SEPARATORS[kind].fullmatch(value)):
        return "".join(part or "" for part in found.groups())
    return value.upper() if kind == "CS" else value
