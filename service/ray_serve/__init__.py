"""Runs the service as a Ray Serve deployment; needs the optional extra ``ray``."""
