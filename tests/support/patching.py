"""Replace a name for one test, and fail that test if nothing uses the name any more."""

import dis
import inspect
import pkgutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, ModuleType
from typing import Any

import pytest

NOTHING = object()  # is to be replaced


class Calls:
    """How often a patched function was called, by any thread."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0

    def counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that counts itself first."""

        def call(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            return function(*args, **kwargs)

        return call


class FailsOnce:
    """A function that raises an error at its first call; ``failed`` and ``again`` tell of this call and of the next.

    Args:
        usual: does the other calls.
        error: is raised at the first one.
        before: gets the arguments of the first one before that.

    """

    def __init__(
        self, usual: Callable[..., Any], error: Exception, before: Callable[..., object] = lambda *_: None
    ) -> None:
        self._usual, self._error, self._before = usual, error, before
        self.failed, self.again = threading.Event(), threading.Event()

    def __call__(self, *arguments: Any) -> Any:
        """Raise the error, or do as usual."""
        if self.failed.is_set():
            self.again.set()
            return self._usual(*arguments)
        self._before(*arguments)
        self.failed.set()
        raise self._error


class Patches:
    """Replaces names until the test ends, and knows which of them were used."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._must_be_called: list[Calls] = []

    def __call__(self, owner: object, name: str, by: Any = NOTHING) -> Calls:
        """Replace ``owner.name``, or only count its calls.

        A function or property must be called before the test ends. A test that says it is *not* called asserts that
        ``count`` is 0, and then does something that does call it. A constant must be read by a function of its module:
        a copy that another module imported, or a default argument, would stay as it was.

        Args:
            owner: a module, class or object, or its dotted name.
            name: of its attribute.
            by: what stands there until the test ends.

        """
        owner = pkgutil.resolve_name(owner) if isinstance(owner, str) else owner
        calls = Calls(f"{getattr(owner, '__name__', type(owner).__name__)}.{name}")
        value = getattr(owner, name) if by is NOTHING else by
        if isinstance(value, property) or callable(value):
            self._must_be_called.append(calls)
            value = property(calls.counted(value.fget)) if isinstance(value, property) else calls.counted(value)
        elif isinstance(owner, ModuleType):
            code = compile(inspect.getsource(owner), calls.name, "exec")
            assert _reads(code, name), f"no function reads {calls.name}"
        self._monkeypatch.setattr(owner, name, value)
        return calls

    def check(self) -> None:
        """Fail if something was patched that is not called."""
        unused = [calls.name for calls in self._must_be_called if not calls.count]
        assert not unused, f"patched, but never called: {unused}"


@contextmanager
def patching() -> Iterator[Patches]:
    """Yield what patches inside the block; afterwards all is as before."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        patches = Patches(monkeypatch)
        yield patches
    patches.check()


def _reads(code: CodeType, name: str) -> bool:
    """Tell whether a function in this code reads a global of this name when it runs."""
    return any(
        (step.opname == "LOAD_GLOBAL" and step.argval == name)
        or (isinstance(step.argval, CodeType) and _reads(step.argval, name))
        for step in dis.get_instructions(code)
    )
