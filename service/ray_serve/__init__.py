"""The service as a deployment of Ray Serve; needs the optional extra ``ray``."""
