"""PraNet in PyTorch: network, checkpoints, transforms and predictors. Never imports ``service``."""
