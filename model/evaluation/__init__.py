"""How weights are judged: metrics, protocols, intervals, clean frames, calibration. Serving never imports it."""
