"""Reads DICOM objects, and writes DICOM Segmentations; needs the optional extra ``dicom``."""
