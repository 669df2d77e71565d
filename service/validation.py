"""pydantic's validation errors as sentences for the user who sent the values."""

import json
import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

SHOWN = 80  # characters of a wrong value or name that a message quotes
NUMBER = re.compile(r"[-+]?[0-9.]+")
PLACE = re.compile(r"at line \d+ column \d+")
KINDS = {"bool": "true or false", "int": "a whole number", "float": "a number", "string": "a text", "list": "a list"}
TOLD = 5  # faults that a message lists; the others show after these are corrected


def describe_errors(faults: Sequence[Mapping[str, Any]], model: type[BaseModel]) -> str:
    """Return one clause for each fault: what is wrong with the data for a ``model``, and what to send instead.

    ``faults`` come from ``ValidationError.errors``, with locations relative to the model.
    """
    clauses = [_clause(fault, model) for fault in faults[:TOLD]]
    return "; ".join(clauses + [f"and {len(faults) - TOLD} more faults"] * (len(faults) > TOLD))


def expectation(fault: Mapping[str, Any], model: type[BaseModel]) -> str:
    """Return a clause that says what a value should be, such as ``it should be greater than 0``."""
    if fault["type"] == "string_pattern_mismatch":
        return f"it should be {in_a_sentence(str(model.model_fields[str(fault['loc'][0])].description))}"
    if kind := KINDS.get(re.split(r"_(?=parsing|type|from)", fault["type"])[0]):
        return f"it should be {kind}"
    if fault["type"] == "too_long":
        return f"it should have at most {fault['ctx']['max_length']} items"
    return str(fault["msg"]).partition(", unable to")[0].replace("Input", "it")


def in_a_sentence(description: str) -> str:
    """Return a description for use inside a sentence: no full stop, and lower case except for words like REST."""
    first = description[:1].lower() if description[1:2].islower() else description[:1]
    return first + description[1:].removesuffix(".")


def _clause(fault: Mapping[str, Any], model: type[BaseModel]) -> str:
    name = ".".join(str(part)[:SHOWN] for part in fault["loc"])
    match fault["type"]:
        case "json_invalid":
            place = PLACE.search(fault["ctx"]["error"])
            return f"it is not valid JSON{f' {place[0]}' if place else ''}; send a JSON object with {_names(model)}"
        case "model_type":
            return f"{name or 'it'} should be a JSON object"
        case "value_error":
            return f"{name or 'it'} {fault['ctx']['error']}"
        case "missing":
            return f"{name} is missing; send it"
        case "extra_forbidden" if len(fault["loc"]) == 1:
            return f"{name} is unknown; the known names are {_names(model)}"
        case "extra_forbidden":
            return f"{name} is unknown; leave it out"
    given = fault["input"]
    told = typed(given) if fault["type"].endswith("_type") else shown(given)
    return f"{name} is {told}, but {expectation(fault, model)}"


def shown(given: Any) -> str:
    """Return the beginning of a value, in quotes unless it is a number; the value may be a large tree."""
    if given is None or isinstance(given, bool):
        return json.dumps(given)
    text = (reprlib.repr(given) if isinstance(given, list | dict) else str(given))[:SHOWN]
    return text if NUMBER.fullmatch(text) else repr(text)


def typed(given: Any) -> str:
    """Return the beginning of a value like ``shown``, but quote every text: ``'1'`` was sent where 1 is wanted."""
    return repr(given[:SHOWN]) if isinstance(given, str) else shown(given)


def _names(model: type[BaseModel]) -> str:
    return ", ".join(model.model_fields)
