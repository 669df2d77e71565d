import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model.network.pranet import Maps
from model.training.loss import edge_weights, presence_loss, structure_loss, supervised_loss


@pytest.fixture
def masks() -> Tensor:
    mask = torch.zeros(2, 1, 64, 64)
    mask[0, :, 20:40, 10:50] = 1
    return mask


def test_separable_average_equals_the_square_one(masks):
    square = F.avg_pool2d(masks, 31, stride=1, padding=15)
    torch.testing.assert_close(edge_weights(masks), 1 + 5 * (square - masks).abs())


def test_weights_are_largest_at_edges_and_one_far_from_them(masks):
    weights = edge_weights(masks)
    assert weights[0, 0, 20, 10] > weights[0, 0, 30, 30]
    assert (weights[1] == 1).all()


def test_loss_of_even_odds_is_what_one_works_out_by_hand():
    masks = torch.zeros(1, 1, 64, 64)
    loss = structure_loss(torch.zeros_like(masks), masks, torch.ones_like(masks))
    union = 0.5 * 64 * 64
    assert float(loss) == pytest.approx(math.log(2) + 1 - 1 / (union + 1), rel=1e-5)


def test_certain_and_right_costs_nothing_even_without_a_polyp(masks):
    logits = (masks * 2 - 1) * 50
    assert float(structure_loss(logits, masks, edge_weights(masks))) == pytest.approx(0, abs=1e-4)


def test_a_false_region_teaches_more_where_the_empty_mask_is_smoothed(masks):
    empty, ones = torch.zeros(1, 1, 64, 64), torch.ones(1, 1, 64, 64)

    def slope(empty_smoothing: float) -> float:
        logits = torch.full_like(empty, -50)
        logits[:, :, :8, :8] = 0
        logits.requires_grad_(True)
        structure_loss(logits, empty, ones, empty_smoothing).backward()
        return float(logits.grad[0, 0, 0, 0])

    pixels, union = 64 * 64, 64 / 2
    by_hand = 0.5 / pixels + 0.25 * (1 + 0.01 * pixels) / (union + 1 + 0.01 * pixels) ** 2
    assert slope(0.01) == pytest.approx(by_hand, rel=1e-4)
    assert slope(0.01) > 3 * slope(0)


def test_smoothing_leaves_pictures_with_a_polyp_alone(masks):
    logits = torch.randn(masks[:1].shape, generator=torch.Generator().manual_seed(0))
    weights = edge_weights(masks[:1])
    assert structure_loss(logits, masks[:1], weights, 0.01) == structure_loss(logits, masks[:1], weights)


def test_loss_is_a_mean_over_pictures_so_batches_add_up(masks):
    logits = torch.randn(masks.shape, generator=torch.Generator().manual_seed(0))
    weights = edge_weights(masks)
    singly = [structure_loss(logits[i : i + 1], masks[i : i + 1], weights[i : i + 1]) for i in (0, 1)]
    torch.testing.assert_close(structure_loss(logits, masks, weights), sum(singly) / 2)


def test_only_supervised_outputs_get_a_gradient(masks):
    maps = Maps(*(torch.zeros_like(masks, requires_grad=True) for _ in range(4)))
    supervised_loss(maps, masks, ("s6", "s3")).backward()
    assert [output.grad is not None for output in maps] == [True, False, False, True]


def with_spot(level: float, row: int) -> Tensor:
    """Logits (1, 1, 64, 64) of -9, and ``level`` in a spot of 8 x 8 pixels from a row on."""
    logits = torch.full((1, 1, 64, 64), -9.0)
    logits[..., row : row + 8, 20:28] = level
    return logits


def test_presence_is_told_from_the_mean_of_the_largest_logits(masks):
    assert float(presence_loss(with_spot(3, 20), masks[1:])) == pytest.approx(math.log1p(math.exp(3)), rel=1e-5)
    assert float(presence_loss(with_spot(3, 24), masks[:1])) == pytest.approx(math.log1p(math.exp(-3)), rel=1e-5)


def test_a_place_without_the_polyp_does_not_count_as_its_presence(masks):
    assert float(presence_loss(with_spot(3, 50), masks[:1])) == pytest.approx(math.log1p(math.exp(9)), rel=1e-5)


def test_of_a_polyp_smaller_than_the_largest_logits_each_pixel_counts():
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 30:32, 30:32] = 1
    logits = torch.full_like(mask, -1.0)
    logits[..., 30, 30] = 3
    assert float(presence_loss(logits, mask)) == pytest.approx(math.log(2), rel=1e-5)  # the mean is 0


def test_a_remainder_of_a_polyp_too_small_to_see_teaches_no_presence():
    mask = torch.zeros(1, 1, 128, 128)
    mask[..., 0, :3] = 1
    logits = torch.zeros_like(mask, requires_grad=True)
    presence_loss(logits, mask).backward()
    assert (logits.grad == 0).all()


def test_a_sure_false_region_teaches_by_presence_what_the_structure_loss_leaves(masks):
    empty = masks[1:]

    def slope(presence_weight: float) -> float:
        maps = Maps(*(with_spot(15, 20).requires_grad_(True) for _ in range(4)))
        supervised_loss(maps, empty, ("s3",), 0.01, presence_weight).backward()
        return float(maps.s3.grad.sum())

    assert slope(1.0) - slope(0.0) == pytest.approx(1.0, abs=1e-3)
    assert slope(0.0) < 0.05


def test_presence_counts_for_each_side_output_that_is_supervised(masks):
    maps = Maps(*(torch.zeros_like(masks) for _ in range(4)))
    plain, more = (float(supervised_loss(maps, masks, ("s6", "s3"), presence_weight=weight)) for weight in (0.0, 0.5))
    assert more - plain == pytest.approx(2 * 0.5 * math.log(2), rel=1e-5)
