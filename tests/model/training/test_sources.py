import argparse
import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.training import recipe
from model.training.augmentation import insets
from model.training.data import sources
from model.training.data.batches import SMALL_POLYP, Batches, Pool
from model.training.data.pairs import DatasetError, Pair, read_pair
from model.training.data.sampler import BLOCK, Sampler
from model.training.flags import add_sources
from model.training.recipe import Phase, Recipe

PLAIN = Recipe("plain", batch=4, learning_rate=1e-3, steps=10, phases=(Phase(0, (64,)),))
TABLE = """
[one]
images = "clinic/images"
masks = "clinic/masks"
stems = "c1_*"
weight = 3

[none]
images = "colon/images"
"""


@pytest.fixture
def data(tmp_path) -> Path:
    """Lay out four pictures of two hospitals in one folder, and two frames without a polyp."""
    for folder in ("clinic/images", "clinic/masks", "colon/images"):
        (tmp_path / folder).mkdir(parents=True)
    for stem in ("c1_a", "c1_b", "c2_a", "c2_b"):
        Image.new("RGB", (80, 60), (150, 80, 70)).save(tmp_path / "clinic" / "images" / f"{stem}.png")
        Image.new("1", (80, 60)).save(tmp_path / "clinic" / "masks" / f"{stem}.png")
    for stem in ("x", "y"):
        Image.new("RGB", (80, 60), (160, 90, 80)).save(tmp_path / "colon" / "images" / f"{stem}.png")
    (tmp_path / "sources.toml").write_text(TABLE)
    return tmp_path


def arguments(*words: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_sources(parser)
    return parser.parse_args([str(word) for word in words])


def test_table_names_sources_by_hospital_with_weights_and_frames_without_masks(data):
    one, none = sources.selected(arguments("--sources", data / "sources.toml"))
    assert (one.name, one.weight, [file.name for file in one.files]) == ("one", 3.0, ["clinic/c1_a", "clinic/c1_b"])
    assert (none.name, none.weight, [file.mask for file in none.files]) == ("none", 1.0, [None, None])
    assert read_pair(none.files[0], 40).mask.shape == (30, 40)


def test_a_folder_of_frames_with_and_without_masks_is_two_sources(data):
    for stem in ("c2_a", "c2_b"):
        (data / "clinic" / "masks" / f"{stem}.png").unlink()
    (data / "sources.toml").write_text(TABLE.replace('colon/images"', 'clinic/images"\nstems = "c2_*"'))
    one, none = sources.selected(arguments("--sources", data / "sources.toml"))
    assert [file.name for file in one.files] == ["clinic/c1_a", "clinic/c1_b"]
    assert [(file.name, file.mask) for file in none.files] == [("clinic/c2_a", None), ("clinic/c2_b", None)]


def test_paths_of_a_table_begin_at_the_folder_of_the_data(data, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "sources.toml"
    elsewhere.write_text(TABLE)
    assert len(sources.selected(arguments("--sources", elsewhere, "--data", data))) == 2


def test_folders_and_clean_frames_can_be_named_without_a_table(data):
    clinic = data / "clinic"
    found = sources.selected(
        arguments("--images", clinic / "images", "--masks", clinic / "masks", "--clean", data / "colon" / "images")
    )
    assert [(source.name, len(source.files), source.weight) for source in found] == [("pairs", 4, 4), ("clean", 2, 2)]
    assert {name: len(files) for name, files in sources.by_set(found).items()} == {"clinic": 4, "clean": 2}


def test_folders_beside_a_table_weigh_as_much_as_a_source_of_it(data):
    folders = ("--images", data / "clinic" / "masks", "--masks", data / "clinic" / "masks")
    found = sources.selected(arguments("--sources", data / "sources.toml", *folders, "--clean", data / "clinic/images"))
    assert [(source.name, source.weight) for source in found] == [("one", 3), ("none", 1), ("pairs", 1), ("clean", 1)]
    assert sources.told(found[:2]) == "samples: 75% one (2 pictures), 25% none (2 pictures)"


def test_listed_pictures_are_left_out_of_every_source(data):
    (data / "list.txt").write_text("clinic/c1_a\nx\n")
    found = sources.selected(arguments("--sources", data / "sources.toml", "--exclude", data / "list.txt"))
    assert [file.name for file in sources.files_of(found)] == ["clinic/c1_b", "colon/y"]


def test_a_list_says_how_many_of_its_names_were_found_and_is_refused_when_none_was(data, capsys):
    given = ("--sources", data / "sources.toml", "--exclude", data / "list.txt")
    (data / "list.txt").write_text("clinic/c1_a\nelsewhere/c1_b\ny\n")
    assert len(sources.files_of(sources.selected(arguments(*given)))) == 2
    assert "list.txt: 2 of 3 names found" in capsys.readouterr().err
    (data / "list.txt").write_text("clinic/c1_a\n")
    sources.selected(arguments(*given))
    assert capsys.readouterr().err == ""
    (data / "list.txt").write_text("elsewhere/c1_a\nelsewhere/x\n")
    with pytest.raises(DatasetError, match=r"list.txt: none of its 2 names is .*; write them as clinic/c1_a"):
        sources.selected(arguments(*given))


def test_a_linked_data_set_is_listed_by_the_name_of_its_link(data):
    (data / "hospital").symlink_to(data / "clinic")
    (data / "list.txt").write_text("hospital/c1_a\n")
    for images, masks in (("images", "masks"), ("masks/../images", "images/../masks")):
        folders = ("--images", data / "hospital" / images, "--masks", data / "hospital" / masks)
        found = sources.selected(arguments(*folders, "--only", data / "list.txt"))
        assert [file.name for file in sources.files_of(found)] == ["hospital/c1_a"]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("[one", "the table of sources is no valid TOML: .*; correct it"),
        ("", "defines no source"),
        ("[one]\nmasks = 'clinic/masks'", "source one needs images"),
        ("[one]\nimages = 'clinic/images'\nshare = 2", "source one needs images and may have masks, stems and weight"),
        ("[one]\nimages = 'clinic/images'\nweight = 0", "source one weighs 0; give a number above 0"),
        ("[one]\nimages = 'clinic/images'\nweight = nan", "source one weighs nan; give a number above 0"),
        ("[one]\nimages = 'clinic/images'\nweight = inf", "source one weighs inf; give a number above 0"),
        ("[one]\nimages = 'clinic/images'\nweight = true", "source one weighs True; give a number above 0"),
        ("[one]\nimages = 'nowhere'", "nowhere: no such folder"),
        ("[one]\nimages = 'clinic/images'\nstems = 'c9_*'", "source one: no picture in .* is named c9_"),
        ("one = 1", "source one needs images"),
        ("[one]\nimages = 'clinic/images'\nstems = ['c1_*']", r"source one has stems \['c1_\*'\]; give one text"),
        ("[one]\nimages = 1", "source one has images 1; give one text in quotes"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_the_source(data, table, words):
    (data / "sources.toml").write_text(table)
    with pytest.raises(DatasetError, match=words):
        sources.selected(arguments("--sources", data / "sources.toml"))


def test_a_table_that_is_not_there_says_what_to_check(data):
    with pytest.raises(
        DatasetError, match=r"the table of sources cannot be read \(No such file or directory\); check its path"
    ):
        sources.selected(arguments("--sources", data / "nowhere.toml"))


def test_a_source_of_a_table_cannot_be_called_as_one_of_the_command_line(data):
    (data / "sources.toml").write_text("[clean]\nimages = 'colon/images'\n")
    with pytest.raises(DatasetError, match=r"sources.toml has a source clean, which is what --clean makes; rename it"):
        sources.selected(arguments("--sources", data / "sources.toml", "--clean", data / "clinic" / "images"))


def test_a_picture_in_two_sources_is_not_trained_on(data):
    (data / "hospital").symlink_to(data / "clinic")
    (data / "sources.toml").write_text(TABLE + "[again]\nimages = 'hospital/images'\nstems = '*_a'\n")
    args = arguments("--sources", data / "sources.toml")
    args.validation = args.exclude = data / "list.txt"
    args.exclude.write_text("hospital/c1_a\n")  # by one of its names
    with pytest.raises(DatasetError, match=r"hospital/images/c1_a.png is in two sources, one and again; name it in"):
        sources.split(args)


def test_nothing_named_is_refused():
    with pytest.raises(DatasetError, match="name pictures to learn from"):
        sources.selected(arguments())


def test_sources_have_the_shares_they_are_given_and_a_picture_waits_for_all_others():
    sampler = Sampler([5, 50, 500], [1.0, 2.0, 1.0], seed=0)
    drawn = [sampler.draw(position) for position in range(4 * BLOCK)]
    shares = Counter(source for source, _ in drawn)
    assert shares == {0: BLOCK, 1: 2 * BLOCK, 2: BLOCK}
    of_first = [index for source, index in drawn if source == 0]
    assert all(sorted(of_first[start : start + 5]) == list(range(5)) for start in range(0, BLOCK, 5))
    assert len({index for source, index in drawn if source == 2}) == BLOCK
    assert drawn == [Sampler([5, 50, 500], [1.0, 2.0, 1.0], seed=0).draw(position) for position in range(4 * BLOCK)]


def test_a_source_of_almost_no_weight_is_not_forgotten():
    drawn = {Sampler([3, 1000], [1e-6, 1.0], seed=1).draw(position)[0] for position in range(BLOCK)}
    assert drawn == {0, 1}


def test_small_polyps_are_drawn_as_often_as_the_recipe_says():
    small, large = (Pair(np.full((60, 80, 3), level, np.uint8), np.zeros((60, 80), np.uint8)) for level in (200, 100))
    small.mask[:4, :4] = 1
    large.mask[:40] = 1
    assert small.mask.mean() < SMALL_POLYP < large.mask.mean()
    batches = Batches([Pool([small, large])], dataclasses.replace(PLAIN, batch=40, small_repeats=3))
    images, _ = batches[0, 32]
    assert (images[:, 0, 16, 16] == 200).float().mean() == pytest.approx(0.75)


def frame(box: tuple[int, int, int] | None, polyp: bool) -> Pair:
    """Paint mucosa with a dark surround and, lower left, a box 60 wide and 50 high."""
    rng = np.random.default_rng(0)
    image = rng.integers(90, 160, (180, 240, 3), np.uint8)
    image[..., 1] //= 2
    image[:, :8] = image[:6] = 5
    if box is not None:
        image[130:, :60] = box
    mask = np.zeros((180, 240), np.uint8)
    mask[40:90, 120:180] = polyp
    return Pair(image, mask)


@pytest.mark.parametrize("box", [(0, 0, 0), (20, 160, 60), (45, 180, 145)])
@pytest.mark.parametrize("polyp", [True, False])
def test_a_box_is_found_and_hidden_with_and_without_a_polyp(box, polyp):
    pair = frame(box, polyp)
    found = insets.find(pair.image)
    assert found is not None
    assert np.allclose(found, (0, 130, 60, 50), atol=4)
    shown = 0
    for seed in range(12):
        image, mask = insets.hide(*pair, np.random.default_rng(seed))
        assert image.shape[:2] == mask.shape
        shown += image.shape == pair.image.shape and (image[135:175, 5:55] == box).all(axis=2).mean() > 0.9
        assert mask.any() == polyp
    assert shown < 6  # a box of another colour may come to lie there


def test_what_has_no_box_stays_as_it_is():
    pair = frame(None, polyp=True)
    assert insets.find(pair.image) is None
    assert insets.hide(*pair, np.random.default_rng(0))[0] is pair.image


def test_what_a_painted_box_hides_leaves_the_mask():
    pair = frame(None, polyp=True)
    everywhere = np.ones_like(pair.mask)
    image, mask = insets.paint(pair.image, everywhere, np.random.default_rng(0))
    changed = (image != pair.image).any(axis=2)
    assert changed.any()
    assert not mask[changed].any()
    assert mask[~changed].mean() > 0.99


@pytest.mark.parametrize("name", ["hospitals", "pasted", "presence", "refine", "stool"])
def test_recipes_for_many_hospitals_paint_boxes_in_and_out(name):
    augmentation = recipe.load(name).augmentation
    assert augmentation.inset > 0
    assert augmentation.inset_out > 0
