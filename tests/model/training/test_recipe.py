import pytest

from model.training import recipe, schedule
from model.training.recipe import RecipeError

MINIMAL = {"batch": 2, "learning_rate": 0.1, "steps": 10, "phases": [{"start": 0, "sizes": [64]}]}


@pytest.mark.parametrize("name", recipe.names())
def test_every_recipe_of_the_package_loads(name):
    assert recipe.load(name).name == name


def test_mediaeval_is_what_the_paper_says():
    paper = recipe.load("mediaeval")
    assert (paper.batch, paper.epochs, paper.optimizer, paper.learning_rate) == (26, 100, "adam", 1e-4)
    assert 352 in paper.phases[0].sizes
    rates = [schedule.learning_rate(paper, epoch / 100, step=1000) for epoch in (0, 49, 50, 99)]
    assert rates == pytest.approx([1e-4, 1e-4, 1e-5, 1e-5])


def test_recipe_can_be_a_file_of_ones_own(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("batch = 2\nlearning_rate = 0.1\nsteps = 5\n[[phases]]\nstart = 0\nsizes = [64, 96]\n")
    assert recipe.load(str(path)).phases[0].sizes == (64, 96)


def test_unknown_recipe_names_those_that_there_are():
    with pytest.raises(RecipeError, match="finetune, hospitals, mediaeval, pasted, presence, refine, scratch, stool"):
        recipe.load("nonsense")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rat": 1}, "unknown learning_rat"),
        ({"augmentation": {"flop": 1}}, "unknown flop"),
        ({"candidates": 2, "mined": 3}, "3 cannot be mined from 2"),
        ({"mined": -1}, "cannot be mined"),
        ({"optimizer": "sgd"}, "optimizer is 'sgd'; choose adam or adamw"),
        ({"batch": 0}, "whole numbers from 1"),
        ({"batch": "six"}, "batch is 'six'; give a whole number"),
        ({"batch": True}, "batch is True; give a whole number"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast'; give a finite number"),
        ({"learning_rate": float("nan")}, "learning_rate is nan; give a finite number"),
        ({"minutes": float("inf")}, "minutes is inf; give a finite number"),
        ({"minutes": "3"}, "minutes is '3'; give a finite number"),
        ({"betas": [0.9]}, "give a list of 2, each a finite number"),
        ({"freeze": "encoder"}, "give a list, each a text in quotes"),
        ({"frozen_statistics": 1}, "give true or false"),
        ({"augmentation": 3}, "augmentation is 3; give a table"),
        ({"augmentation": ["flip"]}, "give a table"),
        ({"augmentation": {"flip": "often"}}, "augmentation: flip is 'often'; give a finite number"),
        ({"phases": 3}, "phases is 3; give a list, each a table"),
        ({"phases": [3]}, "give a list, each a table"),
        ({"phases": [{"start": 0, "sizes": 64}]}, "phases: sizes is 64; give a list, each a whole number"),
        ({"phases": [{"start": 0, "size": [64]}]}, "phases: unknown size; the known names are start, sizes"),
        ({"phases": [{"start": 0, "sizes": []}]}, "at least one in each phase"),
        ({"phases": [{"start": 0, "sizes": [0]}]}, "multiples of 32"),
        ({"minutes": 3}, "exactly one of"),
        ({"steps": None}, "exactly one of"),
        ({"phases": []}, "start at 0"),
        ({"phases": [{"start": 0, "sizes": [100]}]}, "multiples of 32"),
        ({"phases": [{"sizes": [64]}]}, "start"),
    ],
)
def test_malformed_recipe_says_what_is_wrong(change, message):
    with pytest.raises(RecipeError, match=message):
        recipe.parse("test", MINIMAL | change)


def test_what_is_missing_from_a_recipe_is_named():
    with pytest.raises(RecipeError, match="recipe test: batch, learning_rate not given; add"):
        recipe.parse("test", {"steps": 3})


@pytest.mark.parametrize("content", [b"batch =", b"batch = 2 # \xff"])
def test_a_file_that_is_no_recipe_is_named(content, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=r"mine.toml is no valid TOML: .*; correct it"):
        recipe.load(str(path))


def test_length_in_epochs_counts_all_samples():
    assert recipe.parse("test", MINIMAL | {"steps": None, "epochs": 3}).total_steps(100) == 150


def test_cosine_warms_up_and_falls_to_its_final_factor():
    cosine = recipe.parse("test", MINIMAL | {"warmup_steps": 10, "final_factor": 0.01})
    assert schedule.learning_rate(cosine, 0.0, step=0) == pytest.approx(0.01)
    assert schedule.learning_rate(cosine, 0.5, step=50) == pytest.approx(0.1 * 0.505)
    assert schedule.learning_rate(cosine, 1.0, step=99) == pytest.approx(0.001)


def test_sizes_follow_the_phases_and_vary_within_one():
    phases = [{"start": 0, "sizes": [64, 96]}, {"start": 0.5, "sizes": [128]}]
    multiscale = recipe.parse("test", MINIMAL | {"phases": phases})
    assert {schedule.input_size(multiscale, 0.2, step) for step in range(50)} == {64, 96}
    assert {schedule.input_size(multiscale, 0.7, step) for step in range(50)} == {128}
