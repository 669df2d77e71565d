"""Engines: each runs the network on a kind of device, behind the interface in ``engines.predictor``."""
