"""The errors of the back end; every message is one line that says what is wrong and what to do."""

from model.errors import UserError


class ConfigError(Exception):
    """The labelling configuration of the project has no place for the mask of a polyp."""


class PictureError(Exception):
    """The picture of one task cannot be had; other tasks may go on."""


class StartError(UserError):
    """The back end cannot start; the message says what to change."""
