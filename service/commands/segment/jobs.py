"""What ``pranet segment`` reads and where it writes: one output for each picture, under a name of its own."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from model import files
from model.errors import UserError
from model.pictures.suffixes import PICTURES
from model.targets import Targets
from service.commands.segment.inputs import DASH, OPEN_FILES, name_in_tree
from service.commands.video.suffixes import LINES, VIDEOS
from service.dicom.detection import NEEDED_BYTES, is_object

OBJECT = ".dcm"  # of DICOM
SUFFIXES = PICTURES | VIDEOS | {OBJECT}  # of what is taken from a folder
OUT, MASKS = "--out", "--save-masks"


class NothingToDo(UserError):
    """The paths hold no picture or video, or the arguments do not fit together."""


@dataclass(frozen=True, slots=True)
class Job:
    """A picture, video or DICOM object, and its output."""

    source: Path
    target: Path  # of a single picture; the frames of several go into ``folder``

    @property
    def sources(self) -> tuple[Path, ...]:
        """What is read."""
        return (self.source,)

    @property
    def folder(self) -> Path:
        """The folder of the frames of a video, or of a DICOM object with several."""
        return self.target.with_suffix(".frames")

    def frame(self, number: int) -> Path:
        """Return the output of a frame of a video or object, by its number from 0."""
        return frame(self.folder, number, self.target.suffix)

    def wanted(self, targets: Targets) -> Self | None:
        """Return the job, or None if its picture exists and ``--skip-existing`` was given.

        One with several frames stays: each of its frames is looked at in its turn.

        Raises:
            TargetError: an output is an input, or it exists.

        """
        if self.target == DASH:
            return self
        _check_frames(OUT, self.folder, self.target.suffix, targets)
        return self if targets.wants(OUT, self.target) else None

    def segments(self, number: int | None, targets: Targets) -> bool:
        """Return whether a frame is to be segmented, by its number from 0; None: the source as a whole."""
        return number is None or targets.wants(OUT, self.frame(number))


@dataclass(frozen=True, slots=True)
class Series:
    """DICOM objects that become one DICOM Segmentation."""

    sources: tuple[Path, ...]
    target: Path

    def wanted(self, targets: Targets) -> Self | None:
        """Return the job, or None if its output exists and ``--skip-existing`` was given.

        Raises:
            TargetError: the output is an input, or it exists.

        """
        return self if targets.wants(OUT, self.target) else None


@dataclass(frozen=True, slots=True)
class Drawing:
    """A video that becomes one with outlines."""

    source: Path
    overlay: Path | None  # None: it is there already
    masks: Path | None  # a folder of PNG files, or X.ndjson

    @property
    def sources(self) -> tuple[Path, ...]:
        """What is read."""
        return (self.source,)

    @property
    def needs_all(self) -> bool:
        """Whether an output is made of all frames, and so not without one that has its mask already."""
        return self.overlay is not None or self.masks is None or self.masks.suffix == LINES

    @property
    def at_once(self) -> bool:
        """Whether no frame has an output of its own, so that all is there at the end only."""
        return self.masks is None or self.masks.suffix == LINES

    def frame(self, number: int) -> Path:
        """Return the mask of a frame, by its number from 0, in the folder for them."""
        assert self.masks is not None
        return frame(self.masks, number, ".png")

    def wanted(self, targets: Targets) -> "Drawing | None":
        """Return what of it is to be written; None if all of it exists and ``--skip-existing`` was given.

        Raises:
            TargetError: an output is an input, or it exists.

        """
        overlay = self.overlay if self.overlay and targets.wants(OUT, self.overlay) else None
        masks = self.masks
        if masks and masks.suffix == LINES:
            masks = masks if targets.wants(MASKS, masks) else None
        elif masks:
            targets.folder(MASKS, masks)
            _check_frames(MASKS, masks, ".png", targets)  # each is looked at in its turn
        return Drawing(self.source, overlay, masks) if overlay or masks else None

    def segments(self, number: int | None, targets: Targets) -> bool:
        """Return whether a frame is to be segmented, by its number from 0; None: the video as a whole."""
        return number is None or self.needs_all or targets.wants(MASKS, self.frame(number))


AnyJob = Job | Series | Drawing


def frame(folder: Path, number: int, suffix: str) -> Path:
    """Return the path of a frame's output, by its number from 0."""
    return folder / f"{number:08d}{suffix}"


def plan(paths: Iterable[Path], out: Path, suffix: str, in_trees: Collection[Path] = ()) -> list[Job]:
    """Give each picture or video its output: its own name, in the tree of the folder it is in, with ``suffix`` added.

    So the name depends on nothing else, such as another picture of the same stem. What lies in ``out`` is no input.
    See ``named`` for the arguments.

    Raises:
        NothingToDo: a path does not exist, or two pictures have the same name.

    """
    jobs: dict[Path, Job] = {}
    for source, name in named(paths, out, in_trees):
        target = out / f"{name}{suffix}"
        target = DASH if out == DASH else target
        other = jobs.setdefault(target, Job(source, target)).source
        if other != source and (files.identity(other) or other) != files.identity(source):
            if out == DASH:
                raise NothingToDo("--out - takes one picture; give one, or a folder as --out")
            raise NothingToDo(f"{other} and {source} would both be written to {target}; give each its own --out")
    return list(jobs.values())


def named(paths: Iterable[Path], out: Path, in_trees: Collection[Path] = ()) -> Iterator[tuple[Path, Path]]:
    """Yield every file to segment, and its path below the folder in which it was found.

    Args:
        paths: files and folders.
        out: what lies in it is left out.
        in_trees: the files among ``paths`` that keep their own folders.

    Raises:
        NothingToDo: a path does not exist.

    """
    for path in paths:
        if path.is_dir():
            for file in files.listed(
                path, SUFFIXES, deep=True, but=None if _same(path, out) else out, also=holds_object
            ):
                yield file, file.relative_to(path)
        elif path.parent == OPEN_FILES:
            yield path, Path("stdin")
        elif path.exists():
            yield path, name_in_tree(path) if path in in_trees else Path(path.name)
        else:
            raise NothingToDo(f"{path} does not exist; give pictures, videos or folders of pictures")


def left_out(paths: Iterable[Path], but: Collection[Path], out: Path) -> str:
    """Tell what in the folders among ``paths`` is not segmented, by suffix; "" if there is nothing else.

    Args:
        paths: files and folders.
        but: what is segmented, and files that the run itself writes.
        out: what lies in it is left out.

    """
    known = {path.absolute() for path in but}
    kinds = Counter(
        file.suffix.lower()
        for path in paths
        if path.is_dir()
        for file in files.listed(path, (), deep=True, but=None if _same(path, out) else out, also=lambda file: True)
        if file.absolute() not in known
    )
    told = ", ".join(f"{count} {kind or 'without a suffix'}" for kind, count in kinds.most_common())
    return told and f"left out, as no pictures, videos or DICOM objects: {told}"


def holds_object(path: Path) -> bool:
    """Say whether a file can be read and is a DICOM object by its contents; media store objects without a suffix."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return is_object(file.read(NEEDED_BYTES))
    except OSError:
        return False


def _same(one: Path, other: Path) -> bool:
    return one.resolve().is_relative_to(other.resolve())


def _check_frames(flag: str, folder: Path, suffix: str, targets: Targets) -> None:
    for each in sorted(folder.glob(f"*{suffix}")) if folder.is_dir() else []:
        targets.wants(flag, each)
