"""Serves the pictures FOLDER/0000.jpg, 0001.jpg, ... as H.264 over RTSP, in a loop at 30 fps; prints the address.

A camera's other end, by GStreamer; run it with the Python that has PyGObject (Debian: python3-gi,
gir1.2-gst-rtsp-server-1.0, gstreamer1.0-plugins-good and -ugly).
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402 - gi wants to know the versions first

Gst.init(None)
server = GstRtspServer.RTSPServer(address="127.0.0.1", service="0")
factory = GstRtspServer.RTSPMediaFactory(shared=True)
factory.set_launch(
    f"( multifilesrc location={sys.argv[1]}/%04d.jpg loop=true caps=image/jpeg,framerate=30/1 ! jpegdec "
    "! videoconvert ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=30 ! rtph264pay name=pay0 pt=96 )"
)
server.get_mount_points().add_factory("/endoscope", factory)
server.attach(None)
print(f"rtsp://127.0.0.1:{server.get_bound_port()}/endoscope", flush=True)
GLib.MainLoop().run()
