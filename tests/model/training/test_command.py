import argparse
import copy
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from model.errors import UserError
from model.network.pranet import Maps, PraNet
from model.training import backbone, command, flags, journal, loop, recipe, state
from model.training.data.batches import Batches, Pool
from model.training.data.pairs import Pair
from model.training.recipe import RECIPES, RecipeError, parse
from model.training.teacher import network as teacher
from model.training.teacher.network import of_backbone
from model.weights import checkpoint
from model.weights.weights_file import CheckpointError
from tests.support.pictures import ROOT, SAMPLES
from tests.support.training.backbones import published
from tests.support.training.runs import train

SHORT = ("--steps", "20", "--batch", "2", "--precision", "fp32")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(torch.get_num_threads())}
PLAIN = {"batch": 2, "learning_rate": 0.1, "steps": 1, "phases": [{"start": 0, "sizes": [64]}]}


def program(arguments: list[str]) -> list[str]:
    """Return the command line of a training in a process of its own."""
    lines = "import argparse; from model.training import command, flags; p = argparse.ArgumentParser();"
    return [sys.executable, "-c", lines + "flags.add_arguments(p); command.run(p.parse_args())", *arguments]


@pytest.mark.slow
def test_a_run_leaves_weights_a_log_and_its_recipe_and_another_begins_with_its_weights(arguments, tmp_path):
    held_out = str(tmp_path / "held-out.txt")
    train(arguments, tmp_path / "out", "--validation", held_out, "--validate-every", "3")
    assert checkpoint.load(tmp_path / "out" / "last.safetensors").metadata["name"] == "tiny"
    assert checkpoint.load(tmp_path / "out" / "best.safetensors").state.keys() == PraNet().state_dict().keys()
    described = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (described["pairs"], described["recipe"]["learning_rate"]) == (2, 1e-3)
    assert (tmp_path / "out" / "curves.png").exists()
    log = journal.read(tmp_path / "out" / "log.jsonl")
    assert [entry["step"] for entry in log if "loss" in entry] == [1, 2, 3, 4, 5]
    assert [entry["step"] for entry in log if "validation_dice" in entry] == [3, 5]
    last = tmp_path / "out" / "last.safetensors"
    train(arguments, tmp_path / "second", "--init", str(last), "--steps", "1")
    before, after = checkpoint.load(last).state, checkpoint.load(tmp_path / "second" / "last.safetensors").state
    assert max(float((after[name] - before[name]).abs().max()) for name in before if "conv.weight" in name) < 0.01


@pytest.mark.slow
def test_a_run_goes_on_as_it_was_begun_and_leaves_nothing_to_the_one_that_replaces_it(arguments, tmp_path):
    out = tmp_path / "out"
    train(arguments, out, "--validation", str(tmp_path / "held-out.txt"), "--validate-every", "5")
    with pytest.raises(UserError, match="would go on with other pictures and seed; give the arguments that it was"):
        train(arguments, out, "--resume", "--seed", "7")
    train(arguments, out, "--resume", "--validation", str(tmp_path / "held-out.txt"), "--steps", "6")
    assert checkpoint.load(out / "last.safetensors").metadata["steps"] == "6"
    (tmp_path / "held-out.txt").write_text("samples/polyp-2\n")  # as many as before, but others
    with pytest.raises(UserError, match="would go on with other pictures; "):
        train(arguments, out, "--resume", "--validation", str(tmp_path / "held-out.txt"))
    train(arguments, out, "--overwrite", "--steps", "1")
    assert not (out / "best.safetensors").exists()
    assert checkpoint.load(out / "last.safetensors").metadata["steps"] == "1"


@pytest.mark.slow
def test_a_run_goes_on_with_its_sources_in_their_order_and_with_their_masks_alone(many, tmp_path):
    out, table = tmp_path / "out", tmp_path / "sources.toml"
    train(many, out, "--steps", "1")
    first, second = table.read_text().split("[colon]")
    for other in (f"[colon]{second}{first}", f"{first.replace('masks =', '#')}[colon]{second}"):
        table.write_text(other)
        with pytest.raises(UserError, match="would go on with other pictures; "):
            train(many, out, "--resume", "--steps", "2")
    table.write_text(f"{first}[colon]{second}")
    train(many, out, "--resume", "--steps", "2")
    described = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(described | {"sources": {"samples": {"pictures": 3}}}))
    with pytest.raises(UserError, match=r"begun by an earlier version, .*; end it with that version, or --overwrite"):
        train(many, out, "--resume", "--steps", "3")


@pytest.mark.slow
def test_what_a_run_has_not_saved_is_not_taken_from_the_one_before(arguments, tmp_path):
    out = tmp_path / "out"
    train(arguments, out)
    described = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(described | {"run": "the next one, which was killed at once"}))
    with pytest.raises(UserError, match="broken off before its first state; start anew with --overwrite"):
        train(arguments, out, "--resume")


def test_a_run_may_be_called_as_its_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parser = argparse.ArgumentParser()
    flags.add_arguments(parser)
    Path("scratch").mkdir()
    Path("own.toml").mkdir()
    for name in ("scratch", "own.toml"):
        args = parser.parse_args([name, "--out", name, "--resume"])
        expected = pytest.raises(UserError, match="the folder of inputs") if name == "own.toml" else nullcontext()
        with expected:
            command._check(args, [], [args.out])


@pytest.mark.parametrize(
    ("flag", "number"),
    [
        ("--save-every", "0"),
        ("--validate-every", "-1"),
        ("--steps", "0"),
        ("--batch", "1.5"),
        ("--minutes", "0"),
        ("--minutes", "nan"),
    ],
)
def test_numbers_that_cannot_be_are_refused_with_advice(arguments, capsys, flag, number):
    parser = argparse.ArgumentParser()
    flags.add_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args([*arguments, "--out", "out", f"{flag}={number}"])
    assert re.search(rf"argument {flag}: '{number}' is not .*; give the", capsys.readouterr().err)


@pytest.mark.slow
def test_schedule_by_the_clock_begins_no_step_after_its_end(arguments, tmp_path):
    path = Path(arguments[0])
    path.write_text(path.read_text().replace("steps = 5", "minutes = 0.03"))
    train(arguments, tmp_path / "out")
    *earlier, _ = journal.read(tmp_path / "out" / "log.jsonl")
    assert all(entry["seconds"] <= 1.8 for entry in earlier)  # no step begins after the end


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--validation", "nofile.txt"], "nofile.txt: the list of names cannot be read"),
        (["--validation", "others.txt"], "others.txt: none of its 1 names .*; write them as samples/polyp-1"),
        (["--only", "others.txt"], "others.txt: none of its 1 names"),
        (["--exclude", "every.txt"], "the lists of names select none of 3 pictures; names are as samples/polyp-1"),
        (["--images", "more"], "as many --masks as --images"),
        (["--device", "nosuch"], "device 'nosuch' is not available on this machine; use --device cpu"),
        (["--device", "meta"], "device 'meta' is not available on this machine"),
        (["--device", "cuda:77"], "device 'cuda:77' is not available on this machine"),
        (["--resume"], "out holds no run to resume; leave out --resume"),
    ],
)
def test_what_cannot_be_trained_on_is_said_before_training(arguments, tmp_path, monkeypatch, more, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "others.txt").write_text("clinic/nobody\n")
    (tmp_path / "every.txt").write_text("polyp-1\npolyp-2\npolyp-3\n")
    with pytest.raises(UserError, match=words):
        train(arguments, tmp_path / "out", *more)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("noise", "differs"), [(0.25, False), (0.3, True)])
def test_a_version_that_knows_more_augmentation_resumes_a_run_with_the_same_of_the_rest(tmp_path, noise, differs):
    def of(augmentation):
        return {"recipe": {"batch": 1, "augmentation": augmentation}, "sources": [], "run": "first"}

    (tmp_path / state.DESCRIPTION).write_text(json.dumps(of({"noise": 0.25})))
    later = of({"noise": noise, "new": 0.0})
    with pytest.raises(UserError, match="other augmentation") if differs else nullcontext():
        assert state.check_same(tmp_path, later) == "first"


@pytest.mark.parametrize(("there", "advice"), [(True, "cpu or cuda"), (False, "cpu")])
def test_a_device_is_advised_only_if_it_is_there(arguments, tmp_path, patched, there, advice):
    patched(torch.cuda, "is_available", lambda: there)
    with pytest.raises(UserError, match=f"use --device {advice}$"):
        train(arguments, tmp_path / "out", "--device", "cuda:77")


def test_two_networks_to_start_from_are_refused(arguments, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        train(arguments, tmp_path / "out", "--init", "one.safetensors", "--backbone", "other.pth")
    assert "argument --backbone: not allowed with argument --init" in capsys.readouterr().err


def test_a_damaged_picture_is_named(arguments, tmp_path):
    path = tmp_path / "samples" / "images" / "polyp-2.png"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match=r"polyp-2\.png cannot be read"):
        train(arguments, tmp_path / "out")


def test_a_recipe_that_freezes_asks_for_weights(arguments, tmp_path):
    with pytest.raises(RecipeError, match="--init FILE"):
        train(["finetune", *arguments[1:]], tmp_path / "out")


def test_frozen_modules_and_statistics_stay_as_they_were(tmp_path):
    recipe = parse("frozen", PLAIN | {"freeze": ["resnet.layer1"], "frozen_statistics": True})
    network = PraNet()
    before = copy.deepcopy(network.state_dict())
    pair = Pair(np.full((64, 64, 3), 90, np.uint8), np.eye(64, dtype=np.uint8))
    trainer = loop.Trainer(recipe, network, Batches([Pool([pair])], recipe), torch.device("cpu"), tmp_path)
    trainer.step(*trainer.batches[0, 64])
    changed = {name for name, value in network.state_dict().items() if (value != before[name]).any()}
    assert not [name for name in changed if "layer1" in name or "running" in name]
    assert {"resnet.layer2.0.conv1.weight", "ra2_conv4.conv.weight"} <= changed


class Brightness(torch.nn.Module):
    """Sees polyps where pixels are bright."""

    def maps(self, pixels: Tensor) -> Maps:
        return Maps(*[10 * pixels.mean(dim=1, keepdim=True)] * 4)


def test_of_the_candidates_those_on_which_most_is_marked_join_the_batch(tmp_path):
    recipe = parse("mining", PLAIN | {"candidates": 4, "mined": 2})
    pair = Pair(np.full((64, 64, 3), 90, np.uint8), np.eye(64, dtype=np.uint8))
    trainer = loop.Trainer(recipe, PraNet(), Batches([Pool([pair])], recipe), torch.device("cpu"), tmp_path)
    trainer.average.network = Brightness()
    levels = torch.tensor([0, 0, 10, 200, 30, 250], dtype=torch.uint8)  # two of the batch, and four candidates
    images = levels.view(6, 1, 1, 1).expand(6, 3, 64, 64)
    masks = torch.arange(6).view(6, 1, 1, 1)
    kept, theirs = trainer.with_hardest(images, masks)
    assert kept[:, 0, 0, 0].tolist() == [0, 0, 250, 200]
    assert theirs.flatten().tolist() == [0, 1, 5, 3]


def test_a_gradient_that_is_no_number_ends_the_run_and_spoils_no_weights(tmp_path):
    recipe = parse("spoilt", PLAIN)
    network = PraNet()
    pair = Pair(np.full((64, 64, 3), 90, np.uint8), np.eye(64, dtype=np.uint8))
    trainer = loop.Trainer(recipe, network, Batches([Pool([pair])], recipe), torch.device("cpu"), tmp_path)
    network.ra2_conv4.conv.weight.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(UserError, match=r"gradient \(.*\) of step 1 is no finite number, and there is no state yet; "):
        trainer.step(*trainer.batches[0, 64])
    trainer.progress.step = 7
    trainer.save()
    with pytest.raises(UserError, match=r"the last state is that of step 7; .* and --init .*last\.safetensors"):
        trainer.step(*trainer.batches[0, 64])
    assert trainer.progress.step == 7
    assert all(torch.isfinite(parameter).all() for parameter in network.parameters())


def test_a_module_that_is_not_there_cannot_be_frozen():
    with pytest.raises(RecipeError, match="no module 'backbone' to freeze"):
        loop.freeze(PraNet(), parse("frozen", PLAIN | {"freeze": ["backbone"]}))


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("name", recipe.names())
def test_twenty_steps_of_every_recipe(many, tmp_path, name):
    small = re.sub(r"sizes = .*", "sizes = [64]", (RECIPES / f"{name}.toml").read_text())
    small = re.sub(r"candidates = .*", "candidates = 4", small)
    (tmp_path / "small.toml").write_text(small)
    weights = ["--init", str(ROOT / "weights/pranet.safetensors")]
    if name == "teacher":
        torch.save(published(), tmp_path / "lite2.pth")
        weights = ["--backbone", str(tmp_path / "lite2.pth")]
    if name == "distilled":
        checkpoint.save(tmp_path / "teacher.safetensors", teacher.Teacher().state_dict(), "fp32", {})
        weights += ["--teacher", str(tmp_path / "teacher.safetensors")]
    train([str(tmp_path / "small.toml"), *many[1:], *weights], tmp_path / "out", *SHORT)
    losses = [entry["loss"] for entry in journal.read(tmp_path / "out" / "log.jsonl")]
    assert len(losses) == 20
    assert np.isfinite(losses).all()
    (teacher if name == "teacher" else checkpoint).load(tmp_path / "out" / "last.safetensors")


@pytest.mark.slow
def test_a_run_that_is_killed_and_resumed_ends_with_the_weights_of_an_unbroken_one(many, tmp_path):
    broken = [*many, "--save-every", "2"]
    process = subprocess.Popen(program([*broken, "--out", str(tmp_path / "broken")]), env=ENVIRONMENT)
    while process.poll() is None and not (tmp_path / "broken" / "state.pt").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert train(broken, tmp_path / "broken", "--resume") == train(many, tmp_path / "unbroken")
    steps = [entry["step"] for entry in journal.read(tmp_path / "broken" / "log.jsonl")]
    assert steps == [1, 2, 3, 4, 5]
    described = json.loads((tmp_path / "unbroken" / "run.json").read_text())
    counts = [(source["name"], source["pictures"], source["weight"]) for source in described["sources"]]
    assert counts == [("samples", 3, 2.0), ("colon", 2, 1.0)]


@pytest.mark.long
@pytest.mark.slow
def test_each_source_is_left_out_in_turn_and_judged_before_and_after(many, tmp_path, capsys):
    start = ["--init", str(ROOT / "weights/pranet.safetensors"), "--leave-out", "samples", "--leave-out", "colon"]
    parser = argparse.ArgumentParser()
    flags.add_arguments(parser)
    assert command.run(parser.parse_args([*many, *start, "--out", str(tmp_path / "out"), "--steps", "1"])) == 0
    found = json.loads((tmp_path / "out" / "left-out.json").read_text())
    assert [(row["left_out"], row["weights"], row["polyps"], row["clean"]) for row in found] == [
        ("samples", "before", 3, 0),
        ("samples", "after", 3, 0),
        ("colon", "before", 0, 2),
        ("colon", "after", 0, 2),
    ]
    assert found[0]["dice"] > 0.7
    trained_on = json.loads((tmp_path / "out" / "without-samples" / "run.json").read_text())["sources"]
    assert [source["name"] for source in trained_on] == ["colon"]
    assert "samples, before: Dice 0." in capsys.readouterr().out


def test_what_is_left_out_chooses_no_weights(many, tmp_path, patched):
    seen = []
    patched(command, "_train", lambda args, settings, chosen, held_out, *rest: seen.append((chosen, held_out)) or 1 / 0)
    start = ["--init", str(ROOT / "weights/pranet.safetensors"), "--leave-out", "colon", "--validation"]
    (tmp_path / "held-out.txt").write_text("samples/polyp-3\ncolon/a\n")
    with pytest.raises(ZeroDivisionError):
        train(many, tmp_path / "out", *start, str(tmp_path / "held-out.txt"))
    assert [[source.name for source in each] for each in seen[0]] == [["samples"], ["samples"]]
    (tmp_path / "held-out.txt").write_text("colon/a\n")
    with pytest.raises(UserError, match="--validation holds pictures of colon alone; add some of the other sources"):
        train(many, tmp_path / "out", *start, str(tmp_path / "held-out.txt"))


@pytest.mark.long
@pytest.mark.slow
def test_a_run_that_leaves_out_one_source_after_the_other_is_resumed_at_any_of_them(many, tmp_path):
    parser = argparse.ArgumentParser()
    flags.add_arguments(parser)
    start = [*many, "--init", str(ROOT / "weights/pranet.safetensors"), "--out", str(tmp_path / "out"), "--steps", "1"]
    assert command.run(parser.parse_args([*start, "--leave-out", "samples"])) == 0
    both = [*start, "--leave-out", "samples", "--leave-out", "colon", "--resume"]
    assert command.run(parser.parse_args(both)) == 0
    assert len(json.loads((tmp_path / "out" / "left-out.json").read_text())) == 4


def test_what_cannot_be_left_out_is_said(many, arguments, tmp_path):
    init = ["--init", str(ROOT / "weights/pranet.safetensors")]
    with pytest.raises(UserError, match="--leave-out clinic is none of the sources; choose from samples, colon"):
        train(many, tmp_path / "out", "--leave-out", "clinic", *init)
    with pytest.raises(UserError, match="compares with the weights that each run starts from; give --init FILE"):
        train(many, tmp_path / "out", "--leave-out", "colon")
    with pytest.raises(UserError, match="--leave-out pairs leaves nothing to train on; add another source"):
        train(arguments, tmp_path / "out", "--leave-out", "pairs", *init)


def test_near_copies_across_a_split_are_named_and_nothing_is_trained(many, tmp_path, capsys):
    first, second = SAMPLES[:2]
    folder = tmp_path / "samples" / "images"
    with Image.open(folder / f"{first.stem}.png") as picture:
        bright = picture.resize((120, 100)).point(lambda level: min(255, round(1.2 * level)))
    bright.save(folder / f"{second.stem}.png")
    (tmp_path / "held-out.txt").write_text(f"samples/{second.stem}\n")
    parser = argparse.ArgumentParser()
    flags.add_arguments(parser)
    near = ["--near-copies", "--validation", str(tmp_path / "held-out.txt"), "--out", str(tmp_path / "out")]
    assert command.run(parser.parse_args([*many, *near])) == 1
    said = capsys.readouterr().out
    assert f"samples/{second.stem} (validation) is a near-copy of samples/{first.stem}" in said
    assert "1 near-copies between 4 pictures of training and 1 of validation" in said
    assert not (tmp_path / "out").exists()
    (tmp_path / "held-out.txt").write_text("samples/polyp-3\n")
    assert command.run(parser.parse_args([*many, *near])) == 0
    with pytest.raises(UserError, match="give --validation FILE"):
        command.run(parser.parse_args([*many, "--near-copies", "--out", str(tmp_path / "out")]))


def test_backbone_loads_under_its_published_names(tmp_path):
    torch.manual_seed(0)
    source, target = PraNet().resnet, PraNet().resnet
    state = source.state_dict() | {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}
    torch.save(state, tmp_path / "res2net50_v1b.pth")
    backbone.load(target, tmp_path / "res2net50_v1b.pth")
    torch.testing.assert_close(target.state_dict(), source.state_dict())


def test_file_that_is_no_backbone_is_refused(tmp_path):
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"is not a Res2Net-50 v1b backbone: .*; give res2net50_v1b_26w_4s"):
        backbone.load(PraNet().resnet, tmp_path / "other.pth")


@pytest.mark.parametrize(
    "load", [lambda path: backbone.load(PraNet().resnet, path), of_backbone], ids=["own", "teacher"]
)
def test_a_backbone_that_could_run_code_is_refused_without_advice_to_load_it_all_the_same(tmp_path, load):
    torch.save({"conv1.weight": Path("a path")}, tmp_path / "unsafe.pth")
    with pytest.raises(CheckpointError, match="could run code, so it is not loaded") as refused:
        load(tmp_path / "unsafe.pth")
    assert "weights_only" not in str(refused.value)


def test_curves_of_runs_are_drawn_without_a_validation_that_there_was_not(tmp_path):
    log, widths = journal.Journal(tmp_path / "log.jsonl"), []
    for step in range(1, 3):
        log.write(step=step, loss=1 / step, lr=0.1, seconds=step)
        journal.plot([tmp_path / "log.jsonl"], tmp_path / "curves.png")
        with Image.open(tmp_path / "curves.png") as picture:
            widths.append(picture.width)
        log.write(step=step, validation_dice=0.8, seconds=step)
    assert widths == [660, 990]


def test_log_drops_what_a_broken_run_wrote_after_its_last_state(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    journal.Journal(path, step=2)
    assert [entry["step"] for entry in journal.read(path)] == [1, 2]
