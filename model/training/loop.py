"""The training loop: batches in, weights out."""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from tqdm import tqdm

from model.errors import UserError
from model.network.pranet import PraNet
from model.training import mining, schedule, state
from model.training.average import AverageWeights
from model.training.data.batches import Batches, Order
from model.training.folded import folded
from model.training.journal import Journal
from model.training.objective import Supervision
from model.training.recipe import Recipe, RecipeError
from model.training.teacher.network import Teacher
from model.weights import checkpoint

Network = PraNet | Teacher
Validate = Callable[[Network], float]

LAST = "last.safetensors"
BEST = "best.safetensors"
ENCODER = "encoder."  # of a teacher: names of its parameters begin so


class Trainer:
    """One run of a recipe: network, moving average, optimiser and how far it is."""

    def __init__(
        self,
        recipe: Recipe,
        network: Network,
        batches: Batches,
        device: torch.device,
        out: Path,
        objective: nn.Module | None = None,
    ) -> None:
        self.recipe, self.batches, self.device, self.out = recipe, batches, device, out
        self.objective = (objective or Supervision(recipe)).to(device)
        self.network = network.to(device).requires_grad_(True).train()
        freeze(self.network, recipe)
        self.network.to(memory_format=torch.channels_last)
        self._computed = folded(cast(PraNet, self.network)) if recipe.frozen_statistics else self.network
        self.average = AverageWeights(self.network, recipe.average)
        self.optimizer = make_optimizer(recipe, self.network, self.objective)
        self.total_steps = recipe.total_steps(batches.pictures)
        self.progress = state.Progress()
        self._saved = 0
        self._began = time.monotonic()

    def fraction(self, step: int) -> float:
        """Progress through the run (0..1) at a step: by its number, or by the clock."""
        if self.total_steps is not None:
            return step / self.total_steps
        assert self.recipe.minutes is not None
        return self.seconds / (60 * self.recipe.minutes)

    @property
    def seconds(self) -> float:
        """Seconds of training so far, earlier parts of a resumed run included."""
        return self.progress.seconds + time.monotonic() - self._began

    def restore(self, run: str) -> None:
        """Go on where the run in ``out`` was broken off.

        Raises:
            UserError: its state is that of another run.

        """
        self.progress = state.restore(self.out, **self._parts())
        self._saved = self.progress.step
        if self.progress.run != run:
            raise UserError(f"{self.out}: the run was broken off before its first state; start anew with --overwrite")

    def save(self) -> None:
        """Write the state of the run and the weights so far (those of the moving average)."""
        state.save(self.out, replace(self.progress, seconds=self.seconds), **self._parts())
        self.save_weights(self.out / LAST)
        self._saved = self.progress.step
        if self.progress.best < 0:
            (self.out / BEST).unlink(missing_ok=True)  # of a run that this one has replaced

    def save_weights(self, path: Path) -> None:
        """Write the averaged weights as safetensors."""
        metadata = {"name": self.recipe.name, "steps": str(self.progress.step), "seed": str(self.recipe.seed)}
        checkpoint.save(path, self.average.network.state_dict(), "fp32", metadata)

    def run(self, journal: Journal, validate: Validate | None, validate_every: int, save_every: int) -> None:
        """Train to the end of the recipe, journal each step, and validate and save every so many steps."""
        self._began = time.monotonic()
        with tqdm(total=self.total_steps, initial=self.progress.step, unit="step", desc=self.recipe.name) as bar:
            for images, masks in self._batches():
                entry = self.step(images, masks)
                journal.write(step=self.progress.step, seconds=round(self.seconds, 1), **entry)
                bar.set_postfix(loss=f"{entry['loss']:.3f}", size=entry["size"], refresh=False)
                bar.update()
                if validate is not None and self.progress.step % validate_every == 0:
                    self._validate(validate, journal)
                if self.progress.step % save_every == 0:
                    self.save()
        if validate is not None and self.progress.step % validate_every:
            self._validate(validate, journal)
        self.save()

    def step(self, images: Tensor, masks: Tensor) -> dict[str, float]:
        """One optimiser step on RGB uint8 (B, 3, S, S) and masks uint8 (B, 1, S, S) of 0 and 1."""
        step = self.progress.step
        rate = schedule.learning_rate(self.recipe, self.fraction(step), step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("factor", 1.0)  # a run of an earlier version has none
        images, masks = (each.to(self.device, non_blocking=True) for each in (images, masks))
        images, masks = self.with_hardest(images, masks)
        loss = self.objective(self._computed, images, masks.float())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = self._clip()
        self._check_finite(loss, norm)
        self.optimizer.step()
        self.progress.step += 1
        self.average.update(self.progress.step)
        return {"loss": float(loss.detach()), "lr": rate, "norm": float(norm), "size": images.shape[-1]}

    def with_hardest(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Let the hardest of the candidates, which come last, join the batch, and leave the others."""
        if not self.recipe.candidates:
            return images, masks
        hard = mining.hardest(cast(PraNet, self.average.network), images[self.recipe.batch :], self.recipe.mined)
        kept = torch.cat([torch.arange(self.recipe.batch, device=self.device), self.recipe.batch + hard])
        return images[kept], masks[kept]

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of the steps to come."""
        for batch in self.batches.ordered(self._orders(), beside_gpu=self.device.type == "cuda"):
            if self.fraction(self.progress.step) >= 1:  # the clock may end a run with batches made ahead
                break
            yield batch

    def _orders(self) -> Iterator[Order]:
        for step in itertools.count(self.progress.step):
            fraction = self.fraction(step)
            if fraction >= 1:
                return
            yield step, schedule.input_size(self.recipe, fraction, step)

    def _clip(self) -> Tensor:
        parameters = list(self.network.parameters())
        if self.recipe.clip_value is not None:
            nn.utils.clip_grad_value_(parameters, self.recipe.clip_value)
        return nn.utils.clip_grad_norm_(parameters, self.recipe.clip_norm or float("inf"))

    def _check_finite(self, loss: Tensor, norm: Tensor) -> None:
        """Stop before a gradient that is no number makes the weights none, and the state that is saved next.

        Raises:
            UserError: the loss or the norm of the gradient is infinite or no number.

        """
        if torch.isfinite(loss + norm):
            return
        last = f"the last state is that of step {self._saved}" if self._saved else "there is no state yet"
        start = f" and --init {self.out / LAST}" if self._saved else ""
        raise UserError(
            f"the loss ({loss.item():g}) or the gradient ({norm.item():g}) of step {self.progress.step + 1} is no "
            f"finite number, and {last}; start a run with a lower learning_rate, or with --precision fp32{start}"
        )

    def _validate(self, validate: Validate, journal: Journal) -> None:
        dice = validate(self.average.network)
        journal.write(step=self.progress.step, seconds=round(self.seconds, 1), validation_dice=dice)
        if dice > self.progress.best:
            self.progress.best = dice
            self.save_weights(self.out / BEST)

    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        parts = {"network": self.network, "average": self.average.network, "optimizer": self.optimizer}
        return parts | ({"objective": self.objective} if any(True for _ in self.objective.parameters()) else {})


def freeze(network: nn.Module, recipe: Recipe) -> None:
    """Keep the weights of the modules that the recipe names, and batch-norm's statistics where it says so.

    Raises:
        RecipeError: the network has no module of that name.

    """
    for name in recipe.freeze:
        try:
            network.get_submodule(name).requires_grad_(False).eval()
        except AttributeError as error:
            raise RecipeError(f"recipe {recipe.name}: the network has no module {name!r} to freeze") from error
    if recipe.frozen_statistics:
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()


def make_optimizer(recipe: Recipe, network: nn.Module, objective: nn.Module) -> torch.optim.Optimizer:
    """Adam or AdamW; weight decay spares biases and batch-norm, as is usual.

    ``factor`` of a group is that of its learning rate: ``recipe.encoder_rate`` for a teacher's encoder, else 1.
    """
    named = [each for module in (network, objective) for each in module.named_parameters() if each[1].requires_grad]
    groups = []
    for factor, chosen in (
        (1.0, [parameter for name, parameter in named if not name.startswith(ENCODER)]),
        (recipe.encoder_rate, [parameter for name, parameter in named if name.startswith(ENCODER)]),
    ):
        decayed = [parameter for parameter in chosen if parameter.ndim > 1]
        spared = [parameter for parameter in chosen if parameter.ndim <= 1]
        groups += [
            {"params": decayed, "weight_decay": recipe.weight_decay, "factor": factor},
            {"params": spared, "weight_decay": 0.0, "factor": factor},
        ]
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind([group for group in groups if group["params"]], lr=recipe.learning_rate, betas=recipe.betas, fused=True)
