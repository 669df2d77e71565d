import math
import re

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from model.errors import UserError
from model.network.normalisation import normalise
from model.network.pranet import PraNet
from model.training.loss import edge_weights, presence_loss, structure_loss
from model.training.recipe import RECIPES, RecipeError, load, parse
from model.training.teacher import network as teacher
from model.training.teacher.distillation import Distillation, soft_loss
from model.training.teacher.supervision import TeacherSupervision
from model.weights.weights_file import CheckpointError
from tests.support.pictures import ROOT
from tests.support.training.backbones import published
from tests.support.training.runs import train

PLAIN = {"batch": 2, "learning_rate": 0.1, "steps": 1, "phases": [{"start": 0, "sizes": [64]}]}
SHIPPED = str(ROOT / "weights/pranet.safetensors")


def published_features(state: dict[str, Tensor], x: Tensor, blocks: int, strides: dict[int, int]) -> Tensor:
    """Compute the first blocks as published: TensorFlow's "same" padding, batch-norm of epsilon 0.001, ReLU6."""

    def layer(x: Tensor, conv: str, norm: str, stride: int = 1, bounded: bool = True) -> Tensor:
        weight = state[f"{conv}.weight"]
        total = max((math.ceil(x.shape[-1] / stride) - 1) * stride + weight.shape[-1] - x.shape[-1], 0)
        x = F.pad(x, (total // 2, total - total // 2, total // 2, total - total // 2))
        x = F.conv2d(x, weight, stride=stride, groups=1 if weight.shape[1] > 1 or "stem" in conv else len(weight))
        parts = (state[f"{norm}.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
        x = F.batch_norm(x, *parts, eps=1e-3)
        return F.relu6(x) if bounded else x

    x = layer(x, "_conv_stem", "_bn0", 2)
    for number in range(blocks):
        prefix, start = f"_blocks.{number}.", x
        if f"{prefix}_expand_conv.weight" in state:
            x = layer(x, f"{prefix}_expand_conv", f"{prefix}_bn0")
        x = layer(x, f"{prefix}_depthwise_conv", f"{prefix}_bn1", strides.get(number, 1))
        x = layer(x, f"{prefix}_project_conv", f"{prefix}_bn2", bounded=False)
        x = x + start if x.shape == start.shape else x
    return x


def pictures(count: int = 2, side: int = 64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)
    masks = torch.zeros(count, 1, side, side)
    masks[0, :, 10:40, 20:50] = 1
    return images, masks


@torch.no_grad()
def test_the_encoder_computes_what_its_published_layers_do(tmp_path):
    torch.save(state := published(), tmp_path / "lite2.pth")
    encoder = teacher.of_backbone(tmp_path / "lite2.pth").encoder
    x = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(2))
    features = encoder(x)
    assert [feature.shape[1:] for feature in features] == [(24, 16, 24), (48, 8, 12), (120, 4, 6), (352, 2, 3)]
    for feature, blocks in zip(features, (4, 7, 15, 21), strict=True):
        expected = published_features(state, x, blocks, strides={1: 2, 4: 2, 7: 2, 15: 2})
        torch.testing.assert_close(feature, expected, rtol=1e-3, atol=1e-3)


def test_the_teacher_takes_pixels_as_its_encoder_was_trained_on(tmp_path):
    images, _ = pictures()
    torch.testing.assert_close(teacher.rescaled(normalise(images)), (images.float() - 127) / 128, rtol=0, atol=1e-5)


def test_files_that_are_no_backbone_or_no_teacher_are_refused_with_advice(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"is not an EfficientNet-Lite2 backbone: .*; give efficientnet-lite2-"):
        teacher.of_backbone(tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"is not a teacher; train one with the recipe teacher$"):
        teacher.load(ROOT / "weights/pranet.safetensors")
    with pytest.raises(CheckpointError, match=r"cannot be read .*; check the path"):
        teacher.load(tmp_path / "none.safetensors")


def test_a_frame_that_surely_shows_no_polyp_is_silenced_and_others_keep_their_map():
    logits = torch.tensor([-8.0, 0.0, 3.0, 30.0]).view(1, 1, 2, 2).repeat(3, 1, 1, 1)
    found = teacher.silenced(logits, torch.tensor([9.0, 0.0, -9.0]))
    torch.testing.assert_close(found[0, 0, 0], logits[0, 0, 0], rtol=1e-3, atol=1e-3)
    by_hand = torch.logit(torch.sigmoid(logits[1]) * torch.sigmoid(torch.tensor(1.0)))
    torch.testing.assert_close(found[1], by_hand, rtol=1e-4, atol=1e-4)
    assert (found[2] < -7).all()
    assert torch.isfinite(found).all()


def test_a_map_like_the_teachers_costs_nothing_and_any_other_is_drawn_towards_it():
    taught = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(3)) * 4
    taught[1] = -6  # there, it sees no polyp
    weights = torch.ones_like(taught)
    assert float(soft_loss(taught, taught, weights, 0.01)) == pytest.approx(0, abs=1e-6)
    logits = torch.zeros_like(taught).requires_grad_()
    loss = soft_loss(logits, taught, weights, 0.01)
    loss.backward()
    assert loss.item() > 0.5
    assert logits.grad is not None
    sure = taught.abs() > 1
    assert torch.equal(logits.grad.sign()[sure], -taught.sign()[sure])


def test_a_student_learns_from_masks_maps_and_features_and_the_teacher_does_not_learn():
    recipe = parse("taught", PLAIN | {"teacher_share": 0.5, "hint_weight": 1.0})
    master = teacher.Teacher()
    before = {name: value.clone() for name, value in master.state_dict().items()}
    objective, network = Distillation(recipe, [master]).to_device(torch.device("cpu")), PraNet()
    assert {name.split(".")[0] for name in objective.state_dict()} == {"hints"}
    optimizer = torch.optim.Adam([*network.parameters(), *objective.parameters()], lr=1e-3)
    losses = []
    for _ in range(4):
        loss = objective(network, *pictures())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(torch.equal(value, before[name]) for name, value in master.state_dict().items())
    assert all(hint.weight.grad.abs().sum() > 0 for hint in objective.hints)


@pytest.mark.parametrize(("share", "presence"), [(1.0, 0.0), (0.3, 0.0), (0.3, 2.0)])
@torch.no_grad()
def test_the_loss_is_the_recipe_s_share_of_what_the_teacher_and_the_masks_say(share, presence):
    recipe = parse("taught", PLAIN | {"teacher_share": share, "presence_weight": presence, "supervise": ["s6", "s3"]})
    master, network = teacher.Teacher(), PraNet().eval()
    images, masks = pictures()
    loss = Distillation(recipe, [master])(network, images, masks)
    inputs, weights = normalise(images), edge_weights(masks)
    taught, maps = master.eval().taught(inputs)[0], network.maps(inputs)
    soft = sum(soft_loss(logits, taught, weights) for logits in (maps.s6, maps.s3))
    hard = sum(
        structure_loss(logits, masks, weights) + presence * presence_loss(logits, masks)
        for logits in (maps.s6, maps.s3)
    )
    assert float(loss) == pytest.approx(float(share * soft + (1 - share) * hard), rel=1e-4)


@torch.no_grad()
def test_hints_add_to_the_loss_of_the_masks():
    plain, hinted = (parse("taught", PLAIN | {"teacher_share": 0.0, "hint_weight": weight}) for weight in (0.0, 1.0))
    network, (images, masks) = PraNet().eval(), pictures()
    one, other = (
        float(Distillation(recipe, [teacher.Teacher()])(network, images, masks)) for recipe in (plain, hinted)
    )
    assert one + 0.3 < other < one + 6  # three levels, each up to 2


def test_a_teacher_learns_where_polyps_are_and_whether_there_is_one():
    objective, master = TeacherSupervision(load("teacher")), teacher.Teacher()
    objective(master, *pictures()).backward()
    for part in (master.fine, master.coarse, master.presence, master.encoder.stem):
        assert part.weight.grad.abs().sum() > 0


def test_teachers_and_students_are_told_apart(many, tmp_path):
    student = [str(RECIPES / "distilled.toml"), *many[1:], "--init", SHIPPED]
    with pytest.raises(RecipeError, match=r"recipe distilled learns from a teacher; .* give --teacher FILE"):
        train(student, tmp_path / "out")
    with pytest.raises(RecipeError, match="recipe tiny learns from no teacher; leave out --teacher"):
        train(many, tmp_path / "out", "--teacher", SHIPPED)
    with pytest.raises(CheckpointError, match=r"missing\.safetensors"):
        train([*student, "--teacher", str(tmp_path / "missing.safetensors")], tmp_path / "out")
    with pytest.raises(RecipeError, match="a teacher has no candidates"):
        parse("both", PLAIN | {"network": "teacher", "teacher_share": 0.5})
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_teacher_is_trained_and_teaches_a_run_that_resumes_with_no_other(many, tmp_path):
    torch.save(published(), tmp_path / "lite2.pth")
    for name in ("teacher", "distilled"):
        small = re.sub(r"sizes = .*", "sizes = [64]", (RECIPES / f"{name}.toml").read_text())
        small = small.replace('"cosine"', '"constant"')  # so that a run of one step begins as one of two does
        (tmp_path / f"{name}.toml").write_text(small)
    short = ("--steps", "2", "--batch", "2", "--precision", "fp32", "--save-every", "1")
    masters = [tmp_path / "one" / "last.safetensors", tmp_path / "other" / "last.safetensors"]
    for master, seed in zip(masters, "12", strict=True):
        first = [str(tmp_path / "teacher.toml"), *many[1:], "--backbone", str(tmp_path / "lite2.pth")]
        train(first, master.parent, *short, "--seed", seed)
        frozen = safetensors.torch.load_file(master)
        expected = teacher.of_backbone(tmp_path / "lite2.pth").encoder.stem.weight
        torch.testing.assert_close(frozen["encoder.stem.weight"], expected)
    student = [str(tmp_path / "distilled.toml"), *many[1:], "--init", SHIPPED, "--teacher", str(masters[0])]
    whole = train(student, tmp_path / "whole", *short)
    train(student, tmp_path / "parts", *short, "--steps", "1")
    with pytest.raises(UserError, match="would go on with other teachers"):
        train([*student[:-1], str(masters[1])], tmp_path / "parts", *short, "--resume")
    assert train(student, tmp_path / "parts", *short, "--resume") == whole
