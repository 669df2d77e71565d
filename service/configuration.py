"""Reads the settings: environment variables ``PRANET_*``, overridden by command-line flags."""

import argparse
import difflib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from model.pictures.libtiff import silence_libtiff
from service.observability import logs
from service.settings import PREFIX, Settings, SettingsError, flag, variable
from service.validation import expectation, in_a_sentence, shown

KUBERNETES_PREFIXES = (PREFIX + "SERVICE_", PREFIX + "PORT_")  # set by Kubernetes for a Service named "pranet"

log = logging.getLogger(__name__)


def load(environ: Mapping[str, str], flags: Mapping[str, Any]) -> tuple[Settings, list[str]]:
    """Merge environment and command-line flags (flags win); return the settings and warnings to log.

    Raises:
        SettingsError: a name is unknown or a value is invalid.

    """
    values, warnings = _from_environment(environ)
    for name, value in flags.items():
        if value == "" and Settings.model_fields[name].default != "":  # of a script whose variable is not set
            raise SettingsError(f"{flag(name)} is empty; give a value, or leave the flag out")
    values.update({name: value for name, value in flags.items() if value is not None})
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError("\n".join(_explain(fault, values, flags) for fault in error.errors())) from error
    return settings, warnings


def flag_texts() -> dict[str, tuple[str, str]]:
    """Return what help says of each setting's flag: its choices or what it takes, and its meaning and default."""
    return {
        name: (_metavar(name, field), f"{in_a_sentence(str(field.description))} (default: {default_text(field)})")
        for name, field in Settings.model_fields.items()
    }


def _metavar(name: str, field: FieldInfo) -> str:
    """Return the choices of a setting, or what its values are; ``load`` checks them, with those of variables."""
    kinds = [kind for kind in get_args(field.annotation) or (field.annotation,) if kind is not type(None)]
    if get_origin(field.annotation) is Literal:
        return "{" + ",".join(map(str, kinds)) + "}"
    return {bool: "{true,false}", int: "N", float: "NUMBER", Path: "PATH"}.get(
        kinds[0], name.rpartition("_")[2].upper()
    )


def from_command_line(arguments: argparse.Namespace) -> Settings:
    """Merge the environment and the parsed flags, configure logging, and log warnings.

    Raises:
        SettingsError: a name is unknown or a value is invalid.

    """
    flags = {name: value for name, value in vars(arguments).items() if name in Settings.model_fields}
    settings, warnings = load(os.environ, flags)
    logs.configure(settings.log_level, settings.log_format)
    silence_libtiff()
    for warning in warnings:
        log.warning("%s", warning)
    return settings


def markdown_table() -> str:
    """Return the documented table of settings, in Markdown."""
    rows = ["| variable, flag | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        rows.append(f"| `{variable(name)}`, `{flag(name)}` | {default_text(field)} | {field.description} |")
    return "\n".join(rows)


def default_text(field: FieldInfo) -> str:
    """Return the default of a setting as users see it; ``none`` if it has none."""
    if field.default in (None, ""):
        return "none"
    return str(field.default).lower() if isinstance(field.default, bool) else str(field.default)


def _from_environment(environ: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    values: dict[str, Any] = {}
    warnings: list[str] = []
    for key in sorted(key for key in environ if key.startswith(PREFIX)):
        name = key.removeprefix(PREFIX).lower()
        if key.startswith(KUBERNETES_PREFIXES) or (name == "port" and "://" in environ[key]):
            warnings.append(
                f"{key} looks like a Kubernetes service link and is ignored; set enableServiceLinks: false to avoid it"
            )
        elif name in Settings.model_fields:
            if environ[key]:  # an empty variable counts as unset, as compose files need it
                values[name] = environ[key]
        else:
            known = [variable(field) for field in Settings.model_fields]
            nearest = difflib.get_close_matches(key, known, n=1, cutoff=0)
            raise SettingsError(f"{key} is not a setting; did you mean {nearest[0]}?")
    return values, warnings


def _explain(fault: Any, values: Mapping[str, Any], flags: Mapping[str, Any]) -> str:
    ours = str(fault["ctx"]["error"]) if fault["type"] == "value_error" else ""  # which says all
    if not fault["loc"]:
        return ours
    name = str(fault["loc"][0])
    given = variable(name) if flags.get(name) is None else flag(name)
    if ours:
        return f"{given}: {ours}"
    right, meaning = expectation(fault, Settings), in_a_sentence(str(Settings.model_fields[name].description))
    return f"{given} is {shown(values[name])}, but {right}" + ("" if meaning in right else f" ({meaning})")
