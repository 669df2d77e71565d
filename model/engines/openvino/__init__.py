"""Engine for CPUs: OpenVINO graphs in float32, bfloat16 and int8."""
