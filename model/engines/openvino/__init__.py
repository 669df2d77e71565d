"""The engine for CPUs: OpenVINO graphs in float32, bfloat16 and 8 bits."""
