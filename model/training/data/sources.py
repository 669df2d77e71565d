"""Where pictures come from: named sources, each with a weight, its own folders and its own list.

A table of sources is a TOML file with a section for each hospital::

    [clinic]
    images = "clinic/images"
    masks = "clinic/masks"     # left out where no picture shows a polyp
    stems = "c1_*"             # of the pictures to take, where a folder holds those of several hospitals
    weight = 1.0               # share of the samples, relative to the other sources
"""

import argparse
import math
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from model.files import Identity, identity
from model.training.data.pairs import DatasetError, PairFile, clean_frames, find_pairs, listed, read_names_of

FOLDERS = "pairs"  # name of the source that --images and --masks make
FLAGS = {FOLDERS: "--images", "clean": "--clean"}
KEYS = {"images", "masks", "stems", "weight"}


@dataclass(frozen=True)
class Source:
    """Pictures of one hospital or data set; ``weight`` is its share of the samples, relative to other sources."""

    name: str
    weight: float
    files: tuple[PairFile, ...]


def all_of(args: argparse.Namespace) -> list[Source]:
    """Find the sources that the arguments name, before any list is applied.

    Folders given by ``--images`` are one source, and so are those of ``--clean``. Beside a table each weighs 1, as its
    sources do unless it says otherwise; by themselves, each picture weighs the same.

    Raises:
        DatasetError: a table, a folder or a mask is missing or cannot be used, or nothing is named.

    """
    if len(args.images) != len(args.masks):
        raise DatasetError("give as many --masks as --images")
    sources = read(args.sources, args.data or args.sources.parent) if args.sources else []
    pairs = tuple(pair for folders in zip(args.images, args.masks, strict=True) for pair in find_pairs(*folders))
    clean = tuple(frame for folder in args.clean for frame in clean_frames(folder))
    given = ((name, files) for name, files in ((FOLDERS, pairs), ("clean", clean)) if files)
    sources += [Source(name, 1.0 if args.sources else len(files), files) for name, files in given]
    names = [source.name for source in sources]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DatasetError(f"{args.sources} has a source {twice}, which is what {FLAGS[twice]} makes; rename it")
    if not sources:
        raise DatasetError("name pictures to learn from: --sources TABLE, or --images and --masks, or --clean")
    return sources


def selected(args: argparse.Namespace) -> list[Source]:
    """Find the sources that the arguments name, less what their lists leave out."""
    return _selected(args, all_of(args))


def split(args: argparse.Namespace) -> tuple[list[Source], list[Source]]:
    """Find the sources to train on, and those of ``--validation``, none without it.

    Raises:
        DatasetError: see ``all_of`` and ``select``; or a picture is in two sources.

    """
    every = all_of(args)
    _check_apart(every)
    chosen = _selected(args, every)
    if args.validation is None:
        return chosen, []
    held_out = _names(args.validation, every)
    return select(chosen, held_out, None), select(every, set(), held_out)


def _check_apart(sources: list[Source]) -> None:
    """Check that no picture is in two sources: one that is left out of one would be learned from the other."""
    seen: dict[Identity | None, str] = {}
    for source in sources:
        for file in source.files:
            if (other := seen.setdefault(identity(file.image), source.name)) != source.name:
                raise DatasetError(f"{file.image} is in two sources, {other} and {source.name}; name it in one of them")


def _selected(args: argparse.Namespace, every: list[Source]) -> list[Source]:
    exclude = _names(args.exclude, every) if args.exclude else set()
    return select(every, exclude, _names(args.only, every) if args.only else None)


def _names(path: Path, every: list[Source]) -> set[str]:
    return read_names_of(path, [file.image for file in files_of(every)])


def select(sources: list[Source], exclude: set[str], only: set[str] | None) -> list[Source]:
    """Leave out, or keep only, the pictures whose full name or stem is listed; a source without any is left out.

    Raises:
        DatasetError: no picture is left.

    """

    def keep(file: PairFile) -> bool:
        return not listed(file, exclude) and (only is None or listed(file, only))

    kept = [replace(source, files=tuple(filter(keep, source.files))) for source in sources]
    if not files_of(kept):
        names = [file.name for file in files_of(sources)]
        raise DatasetError(f"the lists of names select none of {len(names)} pictures; names are as {names[0]}")
    return [source for source in kept if source.files]


def told(sources: Sequence[Source]) -> str:
    """Return as one line how many of the samples each source gives."""
    total = sum(source.weight for source in sources)
    shares = (f"{source.weight / total:.0%} {source.name} ({len(source.files)} pictures)" for source in sources)
    return "samples: " + ", ".join(shares)


def files_of(sources: Iterable[Source]) -> list[PairFile]:
    """Return the pictures of all sources."""
    return [file for source in sources for file in source.files]


def by_set(sources: Iterable[Source]) -> dict[str, list[PairFile]]:
    """Sort pictures into the sets that are judged apart: those of a table by its names, others by their folders."""
    sets: dict[str, list[PairFile]] = defaultdict(list)
    for source in sources:
        for file in source.files:
            sets[file.name.split("/")[0] if source.name == FOLDERS else source.name].append(file)
    return dict(sets)


def read(table: Path, data: Path) -> list[Source]:
    """Read a table of sources whose paths begin at ``data``.

    Raises:
        DatasetError: the table cannot be read, or names what is not there.

    """
    try:
        sections = tomllib.loads(table.read_text(encoding="utf-8"))
    except OSError as error:
        raise DatasetError(
            f"{table}: the table of sources cannot be read ({error.strerror}); check its path"
        ) from error
    except ValueError as error:
        raise DatasetError(f"{table}: the table of sources is no valid TOML: {error}; correct it") from error
    if not sections:
        raise DatasetError(f"{table}: defines no source; begin one with [name]")
    return [_source(table, data, name, section) for name, section in sections.items()]


def _source(table: Path, data: Path, name: str, section: Any) -> Source:
    if not isinstance(section, dict) or "images" not in section or section.keys() - KEYS:
        raise DatasetError(f"{table}: source {name} needs images and may have masks, stems and weight, nothing else")
    for key in ("images", "masks", "stems"):
        if not isinstance(text := section.get(key, ""), str):
            raise DatasetError(f"{table}: source {name} has {key} {text!r}; give one text in quotes")
    weight = section.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
        raise DatasetError(f"{table}: source {name} weighs {weight!r}; give a number above 0")
    images = data / section["images"]
    stems = section.get("stems", "*")
    found = find_pairs(images, data / section["masks"], stems) if "masks" in section else clean_frames(images, stems)
    if not found:
        raise DatasetError(f"{table}: source {name}: no picture in {images} is named {stems}")
    return Source(name, float(weight), tuple(found))
