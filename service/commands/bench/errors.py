"""The error that benchmarks raise."""

from model.errors import UserError


class BenchError(UserError):
    """The benchmark cannot run, or the server sent a wrong answer; the message says what to do."""
