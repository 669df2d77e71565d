"""What pydantic finds wrong, in the words of whoever gave it."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

SHOWN = 80  # characters of a wrong value


def said(faults: Iterable[Mapping[str, Any]], model: type[BaseModel]) -> str:
    """Say in one clause each what is wrong with what was to be a ``model``, and what would be right.

    ``faults`` are as ``ValidationError.errors`` returns them, their places counted from the model.
    """
    return "; ".join(_clause(fault, model) for fault in faults)


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
    name = ".".join(map(str, fault["loc"]))
    match fault["type"]:
        case "json_invalid":
            return f"it cannot be read ({fault['ctx']['error']}); send a JSON object with {_names(model)}"
        case "model_type":
            return f"{name or 'it'} should be a JSON object"
        case "missing":
            return f"{name} is missing; send it"
        case "extra_forbidden" if len(fault["loc"]) == 1:
            return f"{name} is not known; there are {_names(model)}"
        case "extra_forbidden":
            return f"{name} is not known; leave it out"
    return f"{name} is {str(fault['input'])[:SHOWN]!r}, but {wanted(fault, model)}"


def _names(model: type[BaseModel]) -> str:
    return ", ".join(model.model_fields)
