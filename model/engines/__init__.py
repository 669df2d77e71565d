"""Engines: a network on a device, behind one interface (``engines.predictor``)."""
