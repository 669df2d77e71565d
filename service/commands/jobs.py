"""What ``pranet segment`` reads and where it writes: one output for each picture, under a name of its own."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from model import files
from model.errors import UserError
from model.files import Targets
from service.commands.video import PICTURES, VIDEOS

OBJECT = ".dcm"  # of DICOM
SUFFIXES = PICTURES | {OBJECT}  # of what is taken from a folder
OUT = "--out"


class NothingToDo(UserError):
    """The paths hold no picture, or the arguments do not fit together."""


@dataclass(frozen=True, slots=True)
class Job:
    """A picture, video or DICOM object, and its output."""

    source: Path
    target: Path  # of a single picture; the frames of several go into ``folder``

    @property
    def folder(self) -> Path:
        """The folder of the frames of a video, or of a DICOM object with several."""
        return self.target.with_suffix(".frames")

    def frame(self, number: int) -> Path:
        """Return the output of a frame of a video or object, by its number from 0."""
        return self.folder / f"{number:08d}{self.target.suffix}"


def plan(paths: Iterable[Path], out: Path, suffix: str) -> list[Job]:
    """Give each picture or video its output: its own name, in the tree of the folder it is in, with ``suffix`` added.

    So the name depends on nothing else, such as another picture of the same stem. What lies in ``out`` is no input.

    Raises:
        NothingToDo: a path does not exist, or two pictures have the same name.

    """
    jobs: dict[Path, Job] = {}
    for source, name in _named(paths, out):
        target = out / f"{name}{suffix}"
        other = jobs.setdefault(target, Job(source, target)).source
        if not other.samefile(source):
            raise NothingToDo(f"{other} and {source} would both be written to {target}; segment them one after another")
    return list(jobs.values())


def _named(paths: Iterable[Path], out: Path) -> Iterable[tuple[Path, Path]]:
    for path in paths:
        if path.is_dir():
            for file in files.listed(path, SUFFIXES, deep=True, but=None if _same(path, out) else out):
                yield file, file.relative_to(path)
        elif path.exists():
            yield path, Path(path.name)
        else:
            raise NothingToDo(f"{path} does not exist; give pictures, videos or folders of pictures")


def _same(one: Path, other: Path) -> bool:
    return one.resolve().is_relative_to(other.resolve())


def wanted(jobs: Iterable[Job], targets: Targets) -> list[Job]:
    """Return the jobs to do: without those whose picture exists, where ``--skip-existing`` was given.

    Those with several frames stay: each of their frames is looked at in its turn.

    Raises:
        TargetError: an output is an input, or it exists.

    """
    kept = []
    for job in jobs:
        several = job.source.suffix.lower() in VIDEOS | {OBJECT}
        for frame in sorted(job.folder.glob(f"*{job.target.suffix}")) if several and job.folder.is_dir() else ():
            targets.wants(OUT, frame)
        if targets.wants(OUT, job.target):
            kept.append(job)
    return kept
