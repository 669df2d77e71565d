"""The error of benchmarks."""

from model.errors import UserError


class BenchError(UserError):
    """The benchmark cannot run, or an answer was not what it should be; the message says what to do."""
