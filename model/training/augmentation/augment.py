"""Geometric and colour augmentation of one pair, and the cut-and-paste of a piece of another."""

from dataclasses import replace
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from model.training.augmentation import artefacts, insets, pasting
from model.training.recipe import Augmentation
from model.transforms import Pixels

Matrix = npt.NDArray[np.float64]

REFLECTED = 0.3  # share of pictures continued by reflection; the rest get black, as around an endoscope's view
SHARP = 1.5  # a picture is averaged down first where it would shrink by more than this (warping alone aliases)
LUMA = np.array([0.299, 0.587, 0.114])


def augment(
    pair: tuple[Pixels, Pixels],
    donor: pasting.Donor | None,
    size: int,
    settings: Augmentation,
    rng: np.random.Generator,
) -> tuple[Pixels, Pixels]:
    """Return RGB uint8 (size, size, 3) and mask uint8 (size, size); a piece of ``donor`` is pasted in."""
    if rng.random() < settings.inset_out:
        pair = insets.hide(*pair, rng)
    image, mask = warp(*pair, size, settings, rng)
    if donor is not None:
        zoom = settings.pasted_shrink ** -rng.random() if settings.pasted_shrink > 1 else 1.0
        warped, piece = warp(donor.image, donor.piece, size, settings, rng, zoom)
        image, mask = pasting.paste(image, mask, replace(donor, image=warped, piece=piece))
    image, mask = artefacts.draw(image, mask, settings, rng)
    return recolour(image, settings, rng), mask


def warp(
    image: Pixels, mask: Pixels, size: int, settings: Augmentation, rng: np.random.Generator, zoom: float = 1.0
) -> tuple[Pixels, Pixels]:
    """Map a picture of any shape to (size, size): border crop, flip, rotation, scale, aspect and shift.

    ``zoom`` is a factor beside the scale that is drawn.
    """
    side = max(1, round(zoom * size))
    factor = side / max(image.shape[:2])
    if factor * settings.scale < 1 / SHARP or (settings.scale == 1 and factor < 1):
        shape = (max(side, round(image.shape[1] * factor)), max(side, round(image.shape[0] * factor)))
        image = cast(Pixels, cv2.resize(image, shape, interpolation=cv2.INTER_AREA))
        mask = cast(Pixels, cv2.resize(mask, shape, interpolation=cv2.INTER_NEAREST))
    matrix = _matrix(image.shape[1], image.shape[0], size, settings, rng, zoom)
    border = cv2.BORDER_REFLECT_101 if zoom < 1 or rng.random() < REFLECTED else cv2.BORDER_CONSTANT
    warped = cv2.warpAffine(image, matrix[:2], (size, size), flags=cv2.INTER_LINEAR, borderMode=border)
    border = cv2.BORDER_CONSTANT if zoom < 1 else border  # a shrunk polyp would be there several times
    target = cv2.warpAffine(mask, matrix[:2], (size, size), flags=cv2.INTER_NEAREST, borderMode=border)
    return cast(Pixels, warped), cast(Pixels, target)


def _matrix(
    width: int, height: int, size: int, settings: Augmentation, rng: np.random.Generator, zoom: float
) -> Matrix:
    """Affine map from picture to output pixels; rotation is in picture space, before the picture is squared."""
    crop = rng.uniform(0, settings.border_crop, 4) if settings.border_crop else np.zeros(4)
    left, top, right, bottom = crop * (width, height, width, height)
    angle = rng.uniform(-settings.rotation, settings.rotation)
    angle = np.deg2rad(90 * round(angle / 90) if rng.random() < settings.right_angles else angle)
    flips = np.where(rng.random(2) < settings.flip, -1.0, 1.0)
    scale, aspect = zoom * _factor(settings.scale, rng), np.sqrt(_factor(settings.aspect, rng))
    shift = size * rng.uniform(-settings.shift, settings.shift, 2)
    cosine, sine = np.cos(angle), np.sin(angle)
    rotation = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    centre = _translation(-(left + width - right - 1) / 2, -(top + height - bottom - 1) / 2)
    fit = np.diag([size / (width - left - right) * scale * aspect, size / (height - top - bottom) * scale / aspect, 1])
    place = _translation((size - 1) / 2 + shift[0], (size - 1) / 2 + shift[1])
    return cast(Matrix, place @ fit @ rotation @ np.diag([*flips, 1.0]) @ centre)


def _translation(x: float, y: float) -> Matrix:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]])


def recolour(image: Pixels, settings: Augmentation, rng: np.random.Generator) -> Pixels:
    """Change brightness, contrast, saturation, white balance, sharpness and noise."""
    gains = np.exp(rng.uniform(-1, 1, 3) * np.log(settings.channel_gain)) * _factor(settings.brightness, rng)
    saturation = 0.0 if rng.random() < settings.gray else _factor(settings.saturation, rng)
    colours = (saturation * np.eye(3) + (1 - saturation) * LUMA) @ np.diag(gains)
    contrast = _factor(settings.contrast, rng)
    level = float(np.mean(colours @ cv2.mean(image)[:3]))
    matrix = np.column_stack([contrast * colours, np.full(3, (1 - contrast) * level)])
    out = cast(Pixels, cv2.transform(image, matrix))  # all of these are linear: one pass
    if rng.random() < settings.blur:
        out = cast(Pixels, cv2.GaussianBlur(out, (0, 0), rng.uniform(0.3, 1.6) * len(image) / 352))
    if rng.random() < settings.noise:
        noisy = out + rng.standard_normal(out.shape, np.float32) * np.float32(rng.uniform(1, 10))
        out = np.clip(noisy, 0, 255).astype(np.uint8)
    return out


def _factor(largest: float, rng: np.random.Generator) -> float:
    """Draw a factor from 1/largest to largest, symmetric in its logarithm."""
    return float(np.exp(rng.uniform(-1, 1) * np.log(largest)))
