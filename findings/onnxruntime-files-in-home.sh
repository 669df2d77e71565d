#!/usr/bin/env bash
# What ONNX Runtime leaves in a user's home when it runs a network.
#
# Guess:   on Linux, the wheels of ONNX Runtime have no telemetry: inference writes nothing outside the given paths.
# Truth:   the first session writes an identifier of the device and a database of events below ~/.cache/Microsoft, unless
#          ORT_DISABLE_TELEMETRY=1 is in the environment before the import. (Where a name server answers, it also looks
#          up its maker's.)
# Versions: onnxruntime 1.32.0, onnx 1.23.2, numpy 2.4.6
# Matters: a program for hospitals must not make an identifier, nor report, because somebody exported weights. The package
#          sets the variable before any import, and a test runs the export where every look-up of a name is seen.
#
# Exit code 0: as described. 1: something changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install -q onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
cat > "$folder/run.py" <<'PYTHON'
import os
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "graph", [x], [y])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
session = onnxruntime.InferenceSession(model.SerializeToString())
assert session.run(None, {"x": np.float32([-1])})[0] == 0
home = Path(os.environ["HOME"])
print(f"onnxruntime {onnxruntime.__version__}:", *sorted(str(file.relative_to(home)) for file in home.rglob("*") if file.is_file()))
PYTHON
mkdir "$folder/by-default" "$folder/disabled"
unset XDG_CACHE_HOME ORT_DISABLE_TELEMETRY
by_default=$(HOME="$folder/by-default" "$folder/venv/bin/python" "$folder/run.py")
disabled=$(HOME="$folder/disabled" ORT_DISABLE_TELEMETRY=1 "$folder/venv/bin/python" "$folder/run.py")
echo "by default: $by_default"
echo "with ORT_DISABLE_TELEMETRY=1: $disabled"
[[ $by_default == *.cache/Microsoft/*deviceid* && $disabled == "onnxruntime 1.32.0:" ]]
