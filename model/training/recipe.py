"""A recipe: everything that decides what a training run computes, read from a TOML file."""

import math
import tomllib
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin

from model.errors import UserError

RECIPES = Path(__file__).parent / "recipes"
SUFFIX = ".toml"


class RecipeError(UserError):
    """A recipe is unknown or malformed; the message says what is wrong."""


@dataclass(frozen=True)
class Augmentation:
    """Probabilities (0..1) and ranges of the augmentations; all zero is the plain, resized picture.

    ``rotation`` is in degrees to either side, rounded to right angles with probability ``right_angles``; ``scale``,
    ``aspect`` and the colour ranges are largest factors (1.4 means from 1/1.4 to 1.4); ``shift`` and ``border_crop``
    are fractions of the side. ``paste`` pastes in a polyp, ``decoy`` polyp-free mucosa in the shape of one, ``stool``
    a lump of stool; each is made smaller by up to ``pasted_shrink``. ``inset`` paints a box into a corner,
    ``inset_out`` hides one that a picture has.
    """

    flip: float = 0.0
    rotation: float = 0.0
    right_angles: float = 0.0
    scale: float = 1.0
    aspect: float = 1.0
    shift: float = 0.0
    border_crop: float = 0.0
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    channel_gain: float = 1.0
    gray: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    paste: float = 0.0
    decoy: float = 0.0
    stool: float = 0.0
    pasted_shrink: float = 1.0
    highlights: float = 0.0
    border: float = 0.0
    inset: float = 0.0
    inset_out: float = 0.0
    text: float = 0.0


@dataclass(frozen=True)
class Phase:
    """From progress ``start`` (0..1) on, each step draws one of ``sizes`` (pixels, multiples of 32)."""

    start: float
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Recipe:
    """One way to train; exactly one of ``steps``, ``epochs`` and ``minutes`` says how long.

    With ``minutes`` the schedule follows the clock: it ends in time on a machine of any speed, but only ``steps``
    and ``epochs`` repeat exactly.
    """

    name: str
    batch: int
    learning_rate: float
    phases: tuple[Phase, ...]
    seed: int = 0
    steps: int | None = None
    epochs: int | None = None
    minutes: float | None = None
    optimizer: Literal["adam", "adamw"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine", "step"] = "cosine"
    warmup_steps: int = 0
    final_factor: float = 0.0  # cosine: the last learning rate over the first
    drop_every: float = 1.0  # step: divide by ten after each such fraction of the run
    clip_norm: float | None = None  # of the whole gradient
    clip_value: float | None = None  # of each element of the gradient
    average: float = 0.0  # decay of the moving average of the weights; 0 keeps the last weights themselves
    network: Literal["pranet", "teacher"] = "pranet"
    encoder_rate: float = 1.0  # learning rate of a teacher's encoder, over that of its decoder
    teacher_share: float = 0.0  # of the loss: so much of it compares with a teacher's map, not with the mask
    hint_weight: float = 0.0  # of the loss that compares features with a teacher's, beside the others
    supervise: tuple[str, ...] = ("s6", "s5", "s4", "s3")
    empty_smoothing: float = 0.0  # of the picture, see ``loss.structure_loss``
    presence_weight: float = 0.0  # of the loss of "is there a polyp at all" of each side output, see ``loss``
    freeze: tuple[str, ...] = ()  # modules of the network that keep their weights
    frozen_statistics: bool = False  # batch-norm keeps its statistics: those of a small batch would unlearn them
    negatives: float = 0.0  # share of the samples that are polyp-free crops
    erased: float = 0.0  # share of the samples that are whole pictures whose polyps are covered with mucosa
    candidates: int = 0  # polyp-free crops drawn beside each batch, see ``mining``
    mined: int = 0  # so many of the candidates, those on which most is marked, join the batch
    small_repeats: int = 1  # how many times as often as others, pictures of polyps below 2.5 % of the picture are drawn
    cache_side: int = 448  # pictures are kept in memory with this long side, pixels
    precision: Literal["fp32", "bf16"] = "fp32"
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if sum(length is not None for length in (self.steps, self.epochs, self.minutes)) != 1:
            raise RecipeError(f"recipe {self.name}: give exactly one of steps, epochs and minutes")
        if not 0 <= self.mined <= self.candidates:
            raise RecipeError(f"recipe {self.name}: {self.mined} cannot be mined from {self.candidates} candidates")
        if self.network == "teacher" and (
            self.candidates or self.frozen_statistics or self.taught or self.presence_weight
        ):
            raise RecipeError(
                f"recipe {self.name}: a teacher has no candidates, no batch-norm to freeze, no teacher of its own, and "
                "a fixed weight of presence; leave out candidates, frozen_statistics, teacher_share, hint_weight and "
                "presence_weight"
            )
        for name in ("network", "optimizer", "schedule", "precision"):
            known = get_args(type(self).__annotations__[name])
            if (given := getattr(self, name)) not in known:
                raise RecipeError(f"recipe {self.name}: {name} is {given!r}; choose {' or '.join(known)}")
        counts = (self.batch, *(each for each in (self.steps, self.epochs) if each is not None))
        if any(not isinstance(each, int) or each < 1 for each in counts):
            raise RecipeError(f"recipe {self.name}: batch, steps and epochs are whole numbers from 1")
        starts = [phase.start for phase in self.phases]
        if not starts or starts[0] != 0 or starts != sorted(starts):
            raise RecipeError(f"recipe {self.name}: phases must start at 0 and be in order")
        if any(
            not phase.sizes or min(phase.sizes) < 32 or any(size % 32 for size in phase.sizes) for phase in self.phases
        ):
            raise RecipeError(f"recipe {self.name}: sizes must be multiples of 32, at least one in each phase")

    @property
    def taught(self) -> bool:
        """Whether a teacher takes part."""
        return self.teacher_share > 0 or self.hint_weight > 0

    def total_steps(self, samples: int) -> int | None:
        """Optimiser steps of the whole run over ``samples`` pairs, or None where the clock decides."""
        if self.epochs is not None:
            return max(1, self.epochs * samples // self.batch)
        return self.steps


def load(name: str) -> Recipe:
    """Read a recipe by its name, or from the path of a TOML file.

    Raises:
        RecipeError: no such recipe, or a malformed one.

    """
    path = Path(name) if name.endswith(SUFFIX) else RECIPES / f"{name}{SUFFIX}"
    try:
        return parse(path.stem, tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise RecipeError(f"no recipe {name!r}; there are {', '.join(names())}") from error
    except ValueError as error:
        raise RecipeError(f"recipe {path} is no valid TOML: {error}; correct it") from error


def names() -> list[str]:
    """List the recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob(f"*{SUFFIX}"))


def parse(name: str, values: dict[str, Any]) -> Recipe:
    """Build a recipe from the contents of its file.

    Raises:
        RecipeError: a name is unknown or missing, or a value has another type.

    """
    values = {"name": name, "augmentation": {}, "phases": [], **values}
    _check(f"recipe {name}", Recipe, values)
    augmentation, phases = values.pop("augmentation"), values.pop("phases")
    _check(f"recipe {name}, augmentation", Augmentation, augmentation)
    for phase in phases:
        _check(f"recipe {name}, phases", Phase, phase)
    tuples = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    return Recipe(
        **{**values, **tuples},
        phases=tuple(Phase(phase["start"], tuple(phase["sizes"])) for phase in phases),
        augmentation=Augmentation(**augmentation),
    )


def _check(place: str, wanted: type, values: dict[str, Any]) -> None:
    """Check the names and types of what a data class is made of."""
    known = {entry.name: entry for entry in fields(wanted)}
    if unknown := set(values) - set(known):
        raise RecipeError(f"{place}: unknown {', '.join(sorted(unknown))}; the known names are {', '.join(known)}")
    required = {key for key, entry in known.items() if entry.default is entry.default_factory is MISSING}
    if missing := required - set(values):
        raise RecipeError(f"{place}: {', '.join(sorted(missing))} not given; add what is missing")
    for key, value in values.items():
        if not _fits(value, known[key].type):
            raise RecipeError(f"{place}: {key} is {value!r}; give {_called(known[key].type)}")


def _fits(value: object, wanted: Any) -> bool:
    if isinstance(wanted, UnionType):
        return any(_fits(value, each) for each in get_args(wanted))
    if get_origin(wanted) is Literal:  # the recipe says what there is to choose from
        return True
    if get_origin(wanted) is tuple:
        each, *rest = get_args(wanted)
        sized = rest == [...] or (isinstance(value, (list, tuple)) and len(value) == 1 + len(rest))
        return isinstance(value, (list, tuple)) and sized and all(_fits(item, each) for item in value)
    if is_dataclass(wanted):
        return isinstance(value, dict)
    if isinstance(value, float) and not math.isfinite(value):
        return False
    numbers = (int, float) if wanted is float else wanted
    return isinstance(value, numbers) and (wanted is bool or not isinstance(value, bool))


def _called(wanted: Any) -> str:
    if isinstance(wanted, UnionType):
        return _called(get_args(wanted)[0])
    if get_origin(wanted) is tuple:
        each, *rest = get_args(wanted)
        return f"a list, each {_called(each)}" if rest == [...] else f"a list of {1 + len(rest)}, each {_called(each)}"
    if is_dataclass(wanted):
        return "a table"
    return {float: "a finite number", int: "a whole number", bool: "true or false"}.get(wanted, "a text in quotes")
