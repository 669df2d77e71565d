"""Flags of ``pranet stream``."""

import argparse
from pathlib import Path

from model import targets
from service.commands.flags.access import add_access_options
from service.commands.values import number

SERVER = "127.0.0.1:8001"
POLICIES = ("latest", "every")  # POLICY_LATEST and POLICY_EVERY of ``segmentation.proto``
SHAPING: dict[str, type | tuple[type, ...]] = {
    "threshold": (float, type(None)),
    "smoothing_ms": float,
    "hysteresis": bool,
    "reuse": bool,
    "roi": str,
}  # options on which the masks depend, with the types of their values
EXAMPLES = """\
examples:
  pranet stream clip.mp4 --policy every --out overlay.mp4
  pranet stream /dev/video0 --smoothing-ms 200 --record session
  pranet stream rtsp://camera/stream --server gpu:8001 --token-file token --ca-file ca.pem
"""


def add_stream_options(parser: argparse.ArgumentParser, policy: str = "latest", *, recorded: bool = False) -> None:
    """Declare the options that configure a stream; with ``recorded``, a recording has the values of ``SHAPING``."""
    add = parser.add_argument
    add("--server", default=SERVER, metavar="HOST:PORT", help=f"gRPC address (default: {SERVER})")
    add("--policy", choices=POLICIES, default=policy, help=f"latest (live) or every (default: {policy})")
    add(
        "--deadline-ms",
        type=float,
        default=0,
        help="drop frames that waited longer than this since their capture (default: 0, none)",
    )
    switch = argparse.BooleanOptionalAction if recorded else "store_true"
    server, none, full = ["as recorded"] * 3 if recorded else ["the server's", "0, none", "full"]
    add("--threshold", type=float, help=f"probability above which a pixel is polyp (default: {server})")
    add("--smoothing-ms", type=float, default=0, help=f"time constant of smoothing over frames (default: {none})")
    add("--hysteresis", action=switch, default=False, help="show polyps later and longer, which reduces flicker")
    reuse = "do not compute anew what an earlier frame showed, as in a paused video"
    add("--reuse", action=switch, default=False, help=reuse)
    add("--roi", default="full", help=f"full, auto (without the black border), or x,y,w,h (default: {full})")
    if recorded:
        parser.set_defaults(**dict.fromkeys(SHAPING))
    add_access_options(parser)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``pranet stream``."""
    add = parser.add_argument
    add("source", metavar="SOURCE", help="video file, folder of frames, /dev/videoN, rtsp://..., or demo:")
    add_stream_options(parser)
    add("--fps", type=number, help="frames to send a second (default: as the source's times say)")
    add("--seconds", type=number, help="stop after this many seconds (default: when the source ends)")
    add("--raw", action="store_true", help="send video frames as raw RGB24 instead of JPEG")
    add(
        "--out",
        type=Path,
        metavar="FILE.mp4",
        help="write the frames with the newest outlines of polyps, dropped ones as far as saving keeps up",
    )
    add("--save-masks", type=Path, metavar="DIR", help="write the mask of every answered frame")
    add("--record", type=Path, metavar="DIR", help="keep frames, answers and timings, for pranet replay")
    targets.add_overwrite(parser)
