"""PraNet in PyTorch: network, weights, engines, training and evaluation. Never imports ``service``."""

import os
import sys

# A hospital's server reports to nobody. OpenVINO reports each conversion to its vendor if it can import this module.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None makes its import fail
# ONNX Runtime reports sessions, and keeps an identifier in the user's cache, unless this is set before its import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
