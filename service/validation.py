"""What pydantic finds wrong, in the words of whoever gave it."""

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

SHOWN = 80  # characters of a wrong value, or of its name
TOLD = 5  # faults: who mends these sees the others next


def said(faults: Sequence[Mapping[str, Any]], model: type[BaseModel]) -> str:
    """Say in one clause each what is wrong with what was to be a ``model``, and what would be right.

    ``faults`` are as ``ValidationError.errors`` returns them, their places counted from the model.
    """
    clauses = [_clause(fault, model) for fault in faults[:TOLD]]
    return "; ".join(clauses + [f"and {len(faults) - TOLD} more faults"] * (len(faults) > TOLD))


def wanted(fault: Mapping[str, Any], model: type[BaseModel]) -> str:
    """Say what one value should be."""
    if fault["type"] == "string_pattern_mismatch":
        return f"it should be {in_a_sentence(str(model.model_fields[str(fault['loc'][0])].description))}"
    return str(fault["msg"]).partition(", unable to")[0].replace("Input", "it")


def in_a_sentence(description: str) -> str:
    """Return a description as it stands within a sentence; a word like REST stays as it is."""
    first = description[:1].lower() if description[1:2].islower() else description[:1]
    return first + description[1:].removesuffix(".")


def _clause(fault: Mapping[str, Any], model: type[BaseModel]) -> str:
    name = ".".join(str(part)[:SHOWN] for part in fault["loc"])
    match fault["type"]:
        case "json_invalid":
            return f"it cannot be read ({fault['ctx']['error']}); send a JSON object with {_names(model)}"
        case "model_type":
            return f"{name or 'it'} should be a JSON object"
        case "value_error":
            return f"{name or 'it'} {fault['ctx']['error']}"
        case "missing":
            return f"{name} is missing; send it"
        case "extra_forbidden" if len(fault["loc"]) == 1:
            return f"{name} is not known; there are {_names(model)}"
        case "extra_forbidden":
            return f"{name} is not known; leave it out"
    given = fault["input"]
    shown = reprlib.repr(given) if isinstance(given, list | dict) else str(given)  # not a whole tree of any size
    return f"{name} is {shown[:SHOWN]!r}, but {wanted(fault, model)}"


def _names(model: type[BaseModel]) -> str:
    return ", ".join(model.model_fields)
