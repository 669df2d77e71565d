"""Errors that the user can correct."""


class UserError(Exception):
    """An input is wrong. The message says what, and what to do; commands print it without a traceback."""
