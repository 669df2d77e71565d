"""Errors that the user can correct, and how to install what is missing."""


class UserError(Exception):
    """An input is wrong. The message says what, and what to do; commands print it without a traceback."""


class TargetError(UserError):
    """A target is an input or exists already, or cannot be written; the message names its flag."""


class SourceError(UserError):
    """An input of a command cannot be opened or read, or a video cannot be written."""


def how_to_install(extra: str) -> str:
    """Return the command that installs an optional extra, for the end of an error's text.

    It takes the package from the checkout: on the public index, its name belongs to nobody, and so to anybody.
    """
    return f"in the checkout, run .venv/bin/python -m pip install -e '.[{extra}]'"
