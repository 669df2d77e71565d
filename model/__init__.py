"""PraNet in PyTorch: network, checkpoints, transforms and predictors. Never imports ``service``."""

import sys

# OpenVINO reports each conversion to its vendor unless this module is missing. A hospital's server calls nobody.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None makes its import fail
