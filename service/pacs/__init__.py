"""A DICOM node: receives objects with C-STORE, and stores their Segmentations in a PACS with STOW-RS."""
