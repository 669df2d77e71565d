"""Flags of ``pranet receive``."""

import argparse
from pathlib import Path

from service.commands.flags.access import add_access_options
from service.commands.flags.settings import add_settings
from service.commands.values import port

AE_TITLE, PORT = "PRANET", 11112  # the port that IANA has registered for DICOM
SETTINGS = (
    "host", "weights", "device", "engine", "precision", "input_size", "threshold", "max_batch_size",
    "max_image_pixels", "max_archive_bytes", "tls_cert", "tls_key", "tls_client_ca", "log_level", "log_format",
)  # fmt: skip
EXAMPLES = """\
examples:
  pranet receive --spool /var/lib/pranet/dicom --stow-url https://pacs/dicom-web --token-file token
  pranet receive --host 0.0.0.0 --ae-title POLYPS --caller ENDO1 --caller ENDO2 --spool spool --stow-url https://pacs/dicom-web
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``pranet receive``."""
    add = parser.add_argument
    add("--spool", type=Path, required=True, metavar="DIR", help="folder that keeps objects until they are stored")
    add("--stow-url", required=True, metavar="URL", help="DICOMweb address of the PACS, such as https://pacs/dicom-web")
    add(
        "--dicom-port",
        type=port,
        default=PORT,
        metavar="N",
        help=f"port for C-STORE; 0 for a free one (default: {PORT})",
    )
    add("--metrics-port", type=port, metavar="N", help="port for Prometheus, /metrics (default: none)")
    add("--ae-title", default=AE_TITLE, metavar="AE", help=f"AE title that peers must call (default: {AE_TITLE})")
    add(
        "--caller", action="append", default=[], metavar="AE", help="AE title that may store; repeatable (default: any)"
    )
    add("--roi", default="full", help="full, auto (without the black border), or x,y,w,h (default: full)")
    add("--omit-empty", action="store_true", help="leave frames without a polyp out of a Segmentation")
    kinds, about = ("binary", "labelmap"), "one bit or one byte per pixel of a Segmentation (default: binary)"
    add("--segmentation-type", choices=kinds, default="binary", help=about)
    token = "file with a bearer token, or with user:password for basic authentication"
    add_access_options(parser, "to the PACS", token=token, ca="PEM file of the authorities to trust")
    add_settings(parser, SETTINGS)
