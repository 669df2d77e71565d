"""What the learning rate and the input size are, as functions of the progress through a run (0..1)."""

import math

import numpy as np

from model.training.recipe import Recipe


def learning_rate(recipe: Recipe, progress: float, step: int) -> float:
    """Learning rate at a progress; the warm-up counts steps."""
    rate = recipe.learning_rate * _decay(recipe, min(progress, 1.0))
    return rate * min(1.0, (step + 1) / recipe.warmup_steps) if recipe.warmup_steps else rate


def input_size(recipe: Recipe, progress: float, step: int) -> int:
    """Side of a step's input, pixels: drawn from the sizes of the phase that the run is in."""
    phase = [phase for phase in recipe.phases if phase.start <= progress][-1]
    return int(np.random.default_rng((recipe.seed, 2, step)).choice(phase.sizes))


def _decay(recipe: Recipe, progress: float) -> float:
    match recipe.schedule:
        case "constant":
            return 1.0
        case "cosine":
            return recipe.final_factor + (1 - recipe.final_factor) * 0.5 * (1 + math.cos(math.pi * progress))
        case "step":
            return 0.1 ** math.floor(progress / recipe.drop_every)
