"""DICOM objects in, masks or a DICOM Segmentation out; needs the optional extra ``dicom``."""
