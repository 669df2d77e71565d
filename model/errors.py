"""Errors that the user can mend."""


class UserError(Exception):
    """Something given is wrong; the message is one line that says what, and what to do. Commands print it as it is."""
