"""``pranet segment``: pictures, videos and DICOM objects, without a server."""
