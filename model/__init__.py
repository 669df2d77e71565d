"""PraNet in PyTorch: network, weights, engines, training and evaluation. Never imports ``service``."""

import sys

# OpenVINO reports each conversion to its vendor if it can import this module. A hospital's server must not do that.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None makes its import fail
