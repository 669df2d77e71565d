import argparse
import csv
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from PIL import Image

from model import presence
from model.engines import factory
from model.errors import TargetError, UserError
from model.evaluation import (
    bootstrap,
    boxes,
    calibration,
    clean,
    command,
    contact_sheet,
    flags,
    operating,
    protocols,
)
from model.evaluation.calibration import Reliability
from model.evaluation.maps import FolderMaps, NetworkMaps
from model.files import write_json
from model.network.pranet import PraNet
from model.presence import Presence, statistic
from model.training import validation
from model.training.data.pairs import DatasetError, clean_frames, find_pairs, read_pair, truth_of
from model.transforms import logit
from model.weights import checkpoint
from model.weights.checkpoint import Checkpoint
from model.weights.weights_file import CheckpointError
from tests.support.pictures import DATA, SAMPLES, annotation


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    images, masks = tmp_path / "samples" / "images", tmp_path / "samples" / "masks"
    images.mkdir(parents=True)
    masks.mkdir()
    for sample in SAMPLES:
        shutil.copy(sample, images)
        shutil.copy(DATA / f"{sample.stem}-mask.png", masks / f"{sample.stem}.png")
    return images, masks


def evaluate(folders: tuple[Path, Path], *more: str) -> None:
    parser = argparse.ArgumentParser()
    flags.add_arguments(parser)
    images, masks = map(str, folders)
    assert command.run(parser.parse_args(["--images", images, "--masks", masks, "--device", "cpu", *more])) == 0


def predictions(folder: Path, shift: int) -> str:
    folder.mkdir()
    for sample in SAMPLES:
        moved = np.roll(annotation(sample), shift, axis=1)
        Image.fromarray(moved * np.uint8(255)).save(folder / f"{sample.stem}.png")
    return str(folder)


def test_anybodys_maps_are_judged_and_reported_in_every_form(folders, tmp_path, capsys):
    evaluate(folders, "--predictions", predictions(tmp_path / "maps", 5), "--out", str(tmp_path / "out"))
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    dice = content["metrics"]["samples (n=3)"]["dice"]
    assert 0.8 < dice["low"] <= dice["value"] <= dice["high"] < 1
    with (tmp_path / "out" / "pictures.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [f"samples/{sample.stem}" for sample in SAMPLES]
    assert np.mean([float(row["dice"]) for row in rows]) == pytest.approx(dice["value"], abs=1e-6)
    assert "| dice |" in capsys.readouterr().out
    for picture in ("cases.png", "reliability.png"):
        with Image.open(tmp_path / "out" / picture) as image:
            image.load()


@pytest.mark.parametrize("kind", ["0 and 1", "a palette", "nothing found"])
def test_masks_of_classes_are_not_judged_as_maps(folders, tmp_path, kind):
    maps = tmp_path / "maps"
    maps.mkdir()
    for sample in SAMPLES:
        mask = Image.fromarray(annotation(sample) * np.uint8(kind != "nothing found"))
        if kind == "a palette":
            mask.putpalette([0, 0, 0, 128, 0, 0])
        mask.save(maps / f"{sample.stem}.png")
    if kind == "nothing found":
        evaluate(folders, "--predictions", str(maps))
        return
    with pytest.raises(DatasetError, match=r"two levels, and the highest, 1, is no more than half of white; store"):
        evaluate(folders, "--predictions", str(maps))


def test_calibration_without_polyp_free_crops_is_refused_at_once(folders, tmp_path):
    with pytest.raises(UserError, match="needs --weights and frames without a polyp"):
        evaluate(folders, "--weights", str(tmp_path / "none"), "--calibrate", str(tmp_path / "out"))


def test_calibrated_weights_are_not_written_under_the_name_of_a_pytorch_file(folders, tmp_path):
    with pytest.raises(TargetError, match=r"--calibrate .*out\.pth would be a safetensors file; end its name with"):
        evaluate(folders, "--weights", str(tmp_path / "none"), "--crops", "--calibrate", str(tmp_path / "out.pth"))


def test_calibration_counts_frames_whose_mask_is_black(folders, tmp_path):
    Image.new("1", annotation(SAMPLES[0]).shape[::-1]).save(folders[1] / f"{SAMPLES[0].stem}.png")
    with pytest.raises(CheckpointError, match="no such weights"):  # the next to be looked at
        evaluate(folders, "--weights", str(tmp_path / "no such weights"), "--calibrate", str(tmp_path / "out"))


def test_report_names_every_metric_of_the_paper(folders, tmp_path):
    evaluate(folders, "--predictions", predictions(tmp_path / "maps", 5), "--out", str(tmp_path / "out"))
    metrics = json.loads((tmp_path / "out" / "report.json").read_text())["metrics"]["samples (n=3)"]
    paper = {"jaccard", "dice", "recall", "precision", "accuracy", "f2", "mae", "s_measure", "e_measure", "weighted_f"}
    assert paper | {"boundary_error"} == metrics.keys()


def test_published_protocol_can_be_asked_for(folders, tmp_path):
    maps = predictions(tmp_path / "maps", 0)
    evaluate(folders, "--predictions", maps, "--protocol", "published", "--out", str(tmp_path / "out"))
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert content["protocol"] == "published"
    assert content["metrics"]["samples (n=3)"]["dice"]["value"] > 0.99


def test_a_polyp_that_is_marked_below_the_threshold_alone_is_missed_by_either_protocol(folders, tmp_path):
    maps = tmp_path / "maps"
    maps.mkdir()
    for sample, level in zip(SAMPLES, (100, 255, 255), strict=True):
        Image.fromarray(annotation(sample) * np.uint8(level)).save(maps / f"{sample.stem}.png")
    for protocol in ("fixed", "published"):
        evaluate(folders, "--predictions", str(maps), "--protocol", protocol, "--out", str(tmp_path / protocol))
        (row,) = json.loads((tmp_path / protocol / "report.json").read_text())["sets"]
        assert row["missed"] == pytest.approx(1 / 3)


def test_two_evaluations_are_compared_picture_by_picture(folders, tmp_path):
    evaluate(folders, "--predictions", predictions(tmp_path / "worse", 40), "--out", str(tmp_path / "baseline"))
    baseline = str(tmp_path / "baseline" / "pictures.csv")
    better = predictions(tmp_path / "better", 5)
    evaluate(folders, "--predictions", better, "--baseline", baseline, "--out", str(tmp_path / "out"))
    gain = json.loads((tmp_path / "out" / "report.json").read_text())["gain"]["samples (n=3)"]["dice"]
    assert gain["low"] > 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "is not to be read as pictures.csv of an earlier evaluation .* give one that pranet evaluate --out"),
        ("a picture\nnot a table\n", "is not to be read as pictures.csv"),
        ("name,dice\nsamples/polyp-1,high\n", "is not to be read as pictures.csv"),
        ("name,dice\nothers/polyp-1,0.5\n", "has none of these pictures; they are named as samples/polyp-1"),
    ],
)
def test_a_baseline_that_is_none_is_said_before_anything_is_judged(folders, tmp_path, content, words):
    baseline = tmp_path / "baseline.csv"
    if content is not None:
        baseline.write_text(content)
    with pytest.raises(UserError, match=words):
        evaluate(folders, "--predictions", str(tmp_path / "never looked at"), "--baseline", str(baseline))


@pytest.mark.parametrize(("earlier", "now"), [("fixed", "published"), ("published", "fixed")])
def test_a_baseline_of_another_protocol_is_refused(folders, tmp_path, earlier, now):
    maps = predictions(tmp_path / "maps", 5)
    evaluate(folders, "--predictions", maps, "--protocol", earlier, "--out", str(tmp_path / "out"))
    baseline = ("--baseline", str(tmp_path / "out" / "pictures.csv"))
    with pytest.raises(UserError, match=f"judged by the protocol {earlier}, not {now}; give --protocol {earlier}"):
        evaluate(folders, "--predictions", maps, "--protocol", now, *baseline)
    evaluate(folders, "--predictions", maps, "--protocol", earlier, *baseline)


def test_a_folder_of_clean_pictures_that_is_none_is_named(folders, tmp_path, weights):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        evaluate(folders, "--weights", str(weights), "--clean", str(tmp_path / "nowhere"))


class Silent:
    """Find nothing anywhere."""

    def predict(self, frames):
        return np.full((len(frames), *frames.shape[2:]), -9, np.float32)


def test_the_mask_of_another_picture_is_refused_by_its_shape(folders):
    images, masks = folders
    mask = masks / f"{SAMPLES[0].stem}.png"
    with Image.open(mask) as right:
        smaller, other = right.resize((right.width // 2, right.height // 2)), right.resize((570, 530))
    files = find_pairs(images, masks)[:1]
    smaller.save(mask)
    assert NetworkMaps(Silent(), files).probability(files[0], *smaller.size).shape == smaller.size[::-1]
    other.save(mask)
    maps = masks.parent / "maps"
    shutil.copytree(masks, maps)
    for reads in (
        lambda: NetworkMaps(Silent(), files),
        lambda: FolderMaps(maps, files),
        lambda: validation.judge(PraNet().eval(), files, torch.device("cpu"), "fp32"),
        lambda: read_pair(files[0], 448),
        lambda: truth_of(files[0], 100, 100),
    ):
        with pytest.raises(DatasetError, match=r"the mask has 570x530 pixels, and its picture \d+x\d+; give each"):
            reads()


def test_operating_points_of_a_network_are_judged_whatever_the_shape_of_the_pictures(folders):
    files = [*find_pairs(*folders), *clean_frames(folders[0])]
    (point, *_) = operating.points(files, NetworkMaps(Silent(), files))
    assert (point.frames, point.clean) == ([False] * 3, [False] * 3)


def test_a_mask_may_be_a_smaller_copy_wherever_it_is_used(folders):
    images, masks = folders
    files = find_pairs(images, masks)
    crops = [np.asarray(picture) for _, picture in clean.polyp_free_crops(files)]
    for mask in masks.iterdir():
        with Image.open(mask) as whole:
            whole.resize((whole.width // 2, whole.height // 2), Image.Resampling.NEAREST).save(mask)
    truth = truth_of(files[0], *annotation(SAMPLES[0]).shape[::-1])
    assert (truth != annotation(SAMPLES[0])).mean() < 0.01
    assert len(list(clean.polyp_free_crops(files))) == pytest.approx(len(crops), abs=2)
    counts = boxes.report(Corner(fooled=False), files, None)
    assert counts["painted_in"] + counts["painted_out"] == 2


@pytest.mark.parametrize("given", ["--predictions", "--baseline"])
def test_two_pictures_of_one_name_are_never_taken_for_each_other(folders, tmp_path, given):
    again = tmp_path / "again" / "samples" / "images"
    shutil.copytree(folders[0], again)
    maps = predictions(tmp_path / "maps", 5)
    if given == "--predictions":
        with pytest.raises(DatasetError, match=r"polyp-1.png would be the map of .*polyp-1.jpg and of .*polyp-1.jpg; "):
            evaluate(folders, "--predictions", maps, "--clean", str(again))
        return
    evaluate(folders, "--predictions", maps, "--out", str(tmp_path / "out"))
    baseline = ("--baseline", str(tmp_path / "out" / "pictures.csv"))
    with pytest.raises(UserError, match="two pictures are named samples/polyp-1; judge them one by one"):
        evaluate(folders, "--predictions", maps, "--clean", str(again), *baseline)


def test_a_network_answers_each_of_two_pictures_of_one_name(tmp_path):
    for place, level in (("a", 0), ("b", 255)):
        (tmp_path / place / "own").mkdir(parents=True)
        Image.new("L", (64, 64), level).save(tmp_path / place / "own" / "1.png")
    files = [file for place in ("a", "b") for file in clean_frames(tmp_path / place / "own")]
    files = [replace(file, name="own/1") for file in files]

    class Bright:
        """Finds what is bright."""

        def predict(self, frames):
            return frames[:, 0].astype(np.float32) - 128

    answers = NetworkMaps(Bright(), files)
    assert [float(answers.probability(file, 8, 8).mean().round()) for file in files] == [0, 1]


def test_intervals_are_the_same_however_many_values_are_drawn_at_once(patched):
    values = np.random.default_rng(0).random(50)
    whole = bootstrap.mean(values)
    patched(bootstrap, "DRAWN", 50 * 7)
    assert bootstrap.mean(values) == whole


def test_what_is_no_number_is_null_in_json(tmp_path):
    def no_constant(name):
        raise AssertionError(name)

    write_json(tmp_path / "x.json", {"rate": bootstrap.rate(0, 0), "rows": [{"marked": math.inf}]})
    read = json.loads((tmp_path / "x.json").read_text(), parse_constant=no_constant)
    assert read == {"rate": {"value": None, "low": 0.0, "high": 1.0}, "rows": [{"marked": None}]}


@pytest.mark.slow
def test_weights_are_judged_on_polyps_and_on_polyp_free_crops_and_get_a_presence_score(folders, tmp_path, weights):
    calibrated = tmp_path / "calibrated.safetensors"
    evaluate(
        folders, "--weights", str(weights), "--crops", "--calibrate", str(calibrated), "--out", str(tmp_path / "out")
    )
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert content["metrics"]["samples (n=3)"]["dice"]["value"] > 0.7
    assert content["fps"] > 0
    assert content["crops"]["frames"] > 0
    assert 0 <= content["presence"]["auroc"]["value"] <= 1
    before, after = checkpoint.load(weights), checkpoint.load(calibrated)
    assert Presence.from_metadata(after.metadata) is not None
    assert all((after.state[name] == value).all() for name, value in before.state.items() if "num_batches" not in name)


def test_polyp_free_crops_are_the_same_each_time_and_large_enough(folders):
    files = find_pairs(*folders)
    once, again = list(clean.polyp_free_crops(files)), list(clean.polyp_free_crops(files))
    assert once
    assert [(name, picture.tobytes()) for name, picture in once] == [(n, p.tobytes()) for n, p in again]
    sizes = {file.name: annotation(sample).size for file, sample in zip(files, SAMPLES, strict=True)}
    assert all(p.width * p.height >= clean.LEAST_AREA * sizes[name] * 0.99 for name, p in once)


def test_a_clean_frame_counts_when_more_than_half_a_per_cent_is_marked():
    frame = np.full((200, 200), -1, np.float32)
    speck, blot = frame.copy(), frame.copy()
    speck[0, :200] = 1  # exactly 0.5 %
    blot[0:2, :150] = 1
    found = clean.false_positives([("a", frame), ("b", speck), ("c", blot)])["false_positives"]
    assert found.value == pytest.approx(1 / 3)


def test_intervals_are_over_pictures_and_not_over_their_crops():
    rng = np.random.default_rng(0)
    statistics, labels = rng.normal(size=40), np.arange(40) % 2 == 0
    names = [str(index) for index in range(40)]
    single = clean.PresenceTest(list(statistics), list(labels), names)
    fourfold = clean.PresenceTest(*(4 * list(each) for each in (statistics, labels, names)))
    one, other = (test.report(Presence(1.0, 0.0)) for test in (single, fourfold))
    for key in ("sensitivity", "false_positive_rate", "auroc"):
        assert tuple(other[key]) == pytest.approx(tuple(one[key]))
    frames = [(name, np.full((8, 8), index % 3 - 1, np.float32)) for index, name in enumerate(names)]
    once, again = clean.false_positives(frames), clean.false_positives(4 * frames)
    assert tuple(once["false_positives"]) == pytest.approx(tuple(again["false_positives"]))


def test_presence_statistic_is_the_mean_of_the_largest_half_per_cent():
    logits = np.zeros((20, 20), np.float32)
    logits[0, :2] = (3, 5)
    assert statistic(logits) == 4


@pytest.mark.parametrize("kind", ["noise", "flat", "large in the sample only", "large outside of the sample", "one"])
def test_presence_statistic_misses_none_of_the_largest(kind: str):
    logits = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    if kind == "flat":
        logits[:] = 0.25
    if kind == "large in the sample only":
        logits.ravel()[: 8 * presence.SAMPLING : presence.SAMPLING] += 10
    if kind == "large outside of the sample":
        logits.ravel()[1 : 40 * presence.SAMPLING : presence.SAMPLING] += 10
    if kind == "one":
        logits = logits[:1, :1]
    top = max(1, round(presence.TOP_SHARE * logits.size))
    assert statistic(logits) == pytest.approx(np.sort(logits, axis=None)[-top:].mean(), abs=1e-6)


def test_presence_survives_the_weights_file():
    found = Presence(0.5, -1.25, 0.4)
    assert Presence.from_metadata(found.metadata()) == found
    assert Presence.from_metadata({}) is None


@pytest.mark.parametrize("entry", ["0.5,1", "0.5,nan,0.5", "steep"])
def test_a_malformed_calibration_is_refused_with_the_file(tmp_path, entry):
    (tmp_path / "odd.safetensors").write_bytes(safetensors.numpy.save({}, {"presence": entry}))
    with pytest.raises(CheckpointError, match=r"odd\.safetensors: its presence calibration is malformed"):
        checkpoint.load(tmp_path / "odd.safetensors")


def test_calibration_recovers_the_odds_that_made_the_labels():
    rng = np.random.default_rng(0)
    statistics = rng.normal(0, 2, 20_000)
    labels = rng.random(20_000) < 1 / (1 + np.exp(-(1.5 * statistics - 0.5)))
    fitted = calibration.fit(statistics, labels)
    assert (fitted.scale, fitted.offset) == pytest.approx((1.5, -0.5), abs=0.06)
    scores = calibration.cross_fitted(statistics, labels, [str(index // 2) for index in range(20_000)])
    assert calibration.calibration_error(scores, labels) < 0.02


def test_calibration_stays_finite_when_the_classes_separate():
    statistics = np.array([-3.0, -2.0, -1.0, 1.0, 2.0, 3.0])
    fitted = calibration.fit(statistics, statistics > 0)
    assert fitted.scale > 0
    assert np.isfinite([fitted.scale, fitted.offset]).all()


def test_constant_score_fails_the_presence_test():
    test = clean.PresenceTest([1.0] * 20, [True] * 10 + [False] * 10, [str(i) for i in range(20)])
    content = test.report(None)
    assert content["auroc"].value == 0.5
    sure = clean.PresenceTest([5.0] * 10 + [-5.0] * 10, test.labels, test.pictures).report(Presence(2.0, 0.0))
    assert (sure["auroc"].value, sure["sensitivity"].value, sure["false_positive_rate"].value) == (1, 1, 0)
    assert sure["calibration_error"] < 0.001


def test_auroc_counts_ties_as_half():
    labels = np.array([True, True, False, False])
    assert calibration.auroc(np.array([2.0, 1.0, 1.0, 0.0]), labels) == 3.5 / 4
    assert calibration.auroc(np.array([0.0, 0.0, 1.0, 1.0]), labels) == 0


def test_calibration_error_of_overconfidence_is_how_much_it_is_over():
    scores, labels = np.full(10, 0.9), np.arange(10) < 6
    assert calibration.calibration_error(scores, labels) == pytest.approx(0.3)


def test_pictures_weigh_the_same_in_the_reliability_whatever_their_size():
    reliability = Reliability()
    reliability.add(np.full((10, 10), 0.95), np.ones((10, 10), bool))
    reliability.add(np.full((99, 99), 0.95), np.zeros((99, 99), bool))
    assert reliability.error == pytest.approx(0.45)


def test_bootstrap_interval_of_a_mean_matches_its_standard_error():
    values = np.random.default_rng(0).normal(1, 2, 400)
    estimate = bootstrap.mean(values)
    assert estimate.value == pytest.approx(values.mean())
    assert (estimate.high - estimate.low) / 2 == pytest.approx(1.96 * 2 / 20, rel=0.1)


@pytest.mark.parametrize(("hits", "low", "high"), [(0, 0.0, 0.0370), (5, 0.0215, 0.1118), (100, 0.9630, 1.0)])
def test_interval_of_a_rate_is_wilsons(hits, low, high):
    estimate = bootstrap.rate(hits, 100)
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=1e-4)


def test_the_contact_sheet_has_rows_of_best_median_and_worst_pictures():
    judgements = [protocols.Judgement(str(i), {"dice": i / 20}, 0.1) for i in range(20)]
    rows = contact_sheet.cases(judgements)
    assert rows == {"Best": [19, 18, 17, 16], "Median": [11, 10, 9, 8], "Worst": [3, 2, 1, 0]}
    assert contact_sheet.cases(judgements[:3]) == {"Pictures": [2, 1, 0]}


def test_the_contact_sheet_names_its_colours_its_rows_and_its_pictures():
    cell = np.zeros((contact_sheet.CELL[1], contact_sheet.CELL[0], 3), np.uint8)
    caption = f"{'a long name of a set/' * 4}7: Dice 0.123"

    def drawn(legend: bool, **rows: list[str]) -> np.ndarray:
        sheet = contact_sheet.draw({heading: [(each, cell) for each in captions] for heading, captions in rows.items()})
        return np.asarray(sheet.convert("L"))[0 if legend else contact_sheet.LINE :]

    sheet = drawn(True, Best=["a: Dice 0.9", caption], Worst=["b: Dice 0.1"])
    height, width = sheet.shape
    assert (width, height) == (2 * 320, contact_sheet.LINE + 2 * (256 + 2 * contact_sheet.LINE))
    assert (sheet[: contact_sheet.LINE] < 128).any()  # the legend
    assert (drawn(False, Best=["a"]) != drawn(False, Worst=["a"])).any()
    assert (drawn(False, Best=["a"]) != drawn(False, Best=["b"])).any()
    assert (drawn(False, Best=[caption, ""]) == drawn(False, Best=["x" + caption, ""])).all()  # the end is kept
    assert (drawn(False, Best=[caption, ""]) != drawn(False, Best=[caption + "4", ""])).any()


@pytest.fixture
def sets(folders, tmp_path) -> list[str]:
    """Return the arguments that name two sets: the samples, and frames of which one shows nothing."""
    clean_frames = tmp_path / "colon" / "images"
    clean_frames.mkdir(parents=True)
    for name in ("dark", "bright"):
        Image.new("RGB", (96, 80), (120, 60, 50) if name == "dark" else (220, 160, 150)).save(
            clean_frames / f"{name}.png"
        )
    table = '[samples]\nimages = "samples/images"\nmasks = "samples/masks"\n[colon]\nimages = "colon/images"\n'
    (tmp_path / "sources.toml").write_text(table)
    return ["--sources", str(tmp_path / "sources.toml")]


def evaluate_sets(arguments: list[str], *more: str) -> None:
    parser = argparse.ArgumentParser()
    flags.add_arguments(parser)
    assert command.run(parser.parse_args([*arguments, "--device", "cpu", *more])) == 0


def maps_with_a_blot(folder: Path) -> str:
    """Write the true masks of the samples but one that is missed, and one clean frame with two blots and a speck."""
    found = predictions(folder, 0)
    Image.new("L", (96, 80)).save(folder / f"{SAMPLES[0].stem}.png")
    Image.new("L", (96, 80)).save(folder / "dark.png")
    blots = np.zeros((80, 96), np.uint8)
    blots[10:20, 10:20] = blots[40:50, 40:50] = blots[70, 90] = 255
    Image.fromarray(blots).save(folder / "bright.png")
    return found


def test_each_set_has_a_row_and_the_worst_comes_last(sets, tmp_path, capsys):
    evaluate_sets(sets, "--predictions", maps_with_a_blot(tmp_path / "maps"), "--out", str(tmp_path / "out"))
    better, worse = json.loads((tmp_path / "out" / "report.json").read_text())["sets"]
    assert (better["name"], better["polyps"], better["clean"]) == ("samples", 3, 0)
    assert better["dice"] == pytest.approx(2 / 3)
    assert better["missed"] == pytest.approx(1 / 3)
    assert better["missed_low"] < better["missed"] < better["missed_high"]
    assert (worse["name"], worse["polyps"], worse["dice"], worse["clean"]) == ("colon", 0, None, 2)
    assert (worse["marked"], worse["false_polyps"]) == (0.5, 1.0)  # two blots on one of two frames; a speck is none
    with (tmp_path / "out" / "sets.csv").open() as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["samples", "colon"]
    assert "| samples | 3 | 0.6667 [" in capsys.readouterr().out


def test_the_page_shows_the_worst_cases_of_each_set_with_their_labels(sets, tmp_path):
    maps = maps_with_a_blot(tmp_path / "maps")
    evaluate_sets(sets, "--predictions", maps, "--operating-points", "--out", str(tmp_path / "out"))
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 5
    assert f"samples/{SAMPLES[0].stem}: Dice 0.000" in page
    assert "colon/bright: no polyp, 2.6% of the picture marked" in page
    assert page.index("colon/bright") < page.index("colon/dark") < page.index(SAMPLES[0].stem)
    assert "Operating points" in page
    assert "All metrics" in page
    assert "Brackets hold the 95% confidence interval" in page
    assert "With fewer than 20 pictures (" in page


def test_operating_points_say_what_each_threshold_finds_by_size(tmp_path):
    truth = np.zeros((352, 352), np.uint8)
    truth[:20, :20], truth[100:200, 100:200] = 255, 255  # 0.3 % and 8 % of the picture
    probability = np.zeros((352, 352), np.uint8)
    probability[:20, :20], probability[100:200, 100:200], probability[300:340, 300:340] = 100, 200, 150
    for folder, picture in (("images", truth), ("masks", truth), ("maps", probability)):
        (tmp_path / folder).mkdir()
        Image.fromarray(picture).save(tmp_path / folder / "a.png")
    files = find_pairs(tmp_path / "images", tmp_path / "masks")
    rows = {p.threshold: p.row() for p in operating.points(files, FolderMaps(tmp_path / "maps", files))}
    assert [rows[0.3][key] for key in ("frames", "polyps", "small", "medium", "large")] == [1, 1, 1, None, 1]
    assert [rows[0.5][key] for key in ("frames", "polyps", "small", "large")] == [1, 0.5, 0, 1]
    assert [rows[t]["false polyps a frame"] for t in (0.3, 0.5, 0.6)] == [1, 1, 0]
    assert rows[0.8]["frames"] == 0
    assert rows[0.8]["clean frames marked"] is None


def test_a_moved_operating_point_marks_at_a_half_what_was_marked_at_the_threshold(weights):
    network, before = checkpoint.load(weights), Presence(0.3, -1.2, 0.5)
    state, after = operating.moved(network.state, before, 0.7)
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        earlier, later = (
            Checkpoint.network(replace(network, state=each))(pixels).numpy() for each in (network.state, state)
        )
    assert ((later > 0) == (earlier > logit(0.7))).all()
    assert after.score(later[0, 0]) == pytest.approx(before.score(earlier[0, 0]), abs=1e-5)


@pytest.mark.parametrize("threshold", ["0", "1", "-3"])
def test_an_operating_point_beyond_the_thresholds_is_refused(folders, tmp_path, threshold):
    with pytest.raises(UserError, match="give a threshold between 0 and 1"):
        evaluate(folders, "--predictions", str(tmp_path), "--operate-at", threshold)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--operate-at", "0.7"], "--operate-at changes the weights that --calibrate writes; give both"),
        (["--crops"], "--boxes and --crops need a network"),
        (["--boxes"], "--boxes and --crops need a network"),
    ],
)
def test_flags_without_effect_are_refused(folders, tmp_path, flags, words):
    with pytest.raises(UserError, match=words):
        evaluate(folders, "--predictions", predictions(tmp_path / "maps", 5), *flags)


@pytest.mark.parametrize("twice", ["masks", "maps"])
def test_of_two_files_for_one_picture_none_is_taken(folders, tmp_path, twice):
    maps = predictions(tmp_path / "maps", 5)
    folder = folders[1] if twice == "masks" else Path(maps)
    Image.new("L", (96, 80)).save(folder / "polyp-1.tif")
    with pytest.raises(DatasetError, match=rf"{twice} holds polyp-1.png and polyp-1.tif for one picture; keep one"):
        evaluate(folders, "--predictions", maps)


@pytest.mark.long
@pytest.mark.slow
def test_presence_is_fitted_to_real_frames_without_a_polyp(sets, tmp_path, weights):
    calibrated = tmp_path / "calibrated.safetensors"
    out = ("--calibrate", str(calibrated), "--out", str(tmp_path / "out"))
    evaluate_sets(sets, "--weights", str(weights), *out)
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert content["presence"]["calibration"] == "cross-fitted"
    assert "crops" not in content
    assert checkpoint.load(calibrated).presence != checkpoint.load(weights).presence


class Corner:
    """Answers with a polyp in the middle and, if it is ``fooled``, with none where the lower left corner is black."""

    def __init__(self, fooled: bool) -> None:
        self.fooled = fooled

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Return logits (N, 352, 352)."""
        logits = np.full((len(pixels), 352, 352), -5, np.float32)
        seen = ~(pixels[:, :, 300:, :50].max(axis=(1, 2, 3)) < 10) | (not self.fooled)
        logits[:, 150:200, 150:200] = np.where(seen, 5, -5)[:, None, None]
        return logits


@pytest.mark.parametrize("fooled", [True, False])
def test_boxes_are_painted_in_and_out_and_a_network_that_they_decide_for_is_found(tmp_path, fooled):
    plain = np.random.default_rng(0).integers(100, 180, (200, 240, 3), np.uint8)
    boxed = plain.copy()
    boxed[140:, :70] = 0
    images = tmp_path / "colon" / "images"
    images.mkdir(parents=True)
    for name, picture in (("plain", plain), ("boxed", boxed)):
        Image.fromarray(picture).save(images / f"{name}.png")
    content = boxes.report(Corner(fooled), clean_frames(images), Presence(1.0, 0.0))
    assert (content["painted_in"], content["painted_out"]) == (1, 1)
    assert content["mask_dice"].value == (0 if fooled else 1)
    assert content["presence_change"].value == pytest.approx(0.987 if fooled else 0, abs=0.001)


@pytest.mark.slow
def test_a_box_does_not_decide_for_the_shipped_weights(folders, weights):
    predictor = factory.create(checkpoint.load(weights), device="cpu", precision="fp32")
    content = boxes.report(predictor, find_pairs(*folders), checkpoint.load(weights).presence)
    assert content["painted_in"] + content["painted_out"] == 2  # a box would hide the polyp of the third
    assert content["presence_change"].value <= 0.02
    assert content["mask_dice"].value >= 0.98
