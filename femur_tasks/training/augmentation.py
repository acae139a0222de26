"""Augmentation: another radiograph that could have been, with its mask, drawn from a seed."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from femur_tasks.training.hyperparameters import Augmentation

Array = np.ndarray[Any, np.dtype[Any]]

_ROTATION_DEG, _SCALE, _SHIFT, _ELASTIC = 7.0, 0.13, 0.055, 0.016
_GAMMA, _CONTRAST, _BLUR, _NOISE = 0.35, 0.2, 0.6, 8.0
_GRID = 5


def augment(
    image_hw: Array, mask_hw: Array, augmentation: Augmentation, random: np.random.Generator
) -> tuple[Array, Array]:
    """A picture and its mask, moved and re-exposed.

    Rotation, scale, shift, an elastic field and a flip are one resampling; outside is black and no femur. Then
    gamma, contrast, blur and noise. At strength 1 the standard deviations are 7 degrees, 13 %, 5.5 % and 1.6 % of
    the edge, 0.35 of log gamma, 20 % of contrast, up to 0.6 px of blur and 8 grey values of noise; other strengths
    scale them. The kind `affine` has rotation, scale and flip alone.

    Args:
        image_hw, mask_hw: uint8, 0 to 255 and 0/1, (size, size).
        augmentation: of strength 0 it gives back what came.
        random: draws everything.

    Source: Ronneberger et al., U-Net, 2015 (elastic); Isensee et al., nnU-Net, 2021 (the others).
    """
    strength, affine = augmentation.strength, augmentation.kind == "affine"
    if strength <= 0:
        return image_hw, mask_hw
    where = _places(image_hw.shape, strength, 0.0 if affine else strength, random)
    image = ndimage.map_coordinates(image_hw, where, output=np.float32, order=1)
    mask = ndimage.map_coordinates(mask_hw, where, output=np.float32, order=1) >= 0.5
    exposed = image.round().astype(np.uint8) if affine else _exposed(image, strength, random)
    return exposed, mask.astype(np.uint8)


def _places(shape: tuple[int, ...], strength: float, moves: float, random: np.random.Generator) -> Array:
    """Where each new pixel comes from, float32 (2, H, W) rows and columns."""
    size = np.array(shape, np.float32)
    angle = np.deg2rad(random.normal(0, _ROTATION_DEG * strength))
    zoom = np.exp(random.normal(0, _SCALE * strength))
    flip = -1 if random.random() < 0.5 else 1
    shift = random.normal(0, _SHIFT * moves, 2) * size
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom @ np.diag([1, flip])
    centre = (size - 1) / 2
    grid = np.stack(np.meshgrid(*(np.arange(edge, dtype=np.float32) for edge in shape), indexing="ij"))
    moved = np.tensordot(matrix.astype(np.float32), grid - centre[:, None, None], 1)
    coarse = random.normal(0, _ELASTIC * moves, (2, _GRID, _GRID)).astype(np.float32) * size[:, None, None]
    height, width = shape
    fields = [Image.fromarray(field).resize((width, height), Image.Resampling.BICUBIC) for field in coarse]
    bent = np.stack([np.asarray(field) for field in fields])
    return np.asarray(moved + bent + (centre - shift).astype(np.float32)[:, None, None], np.float32)


def _exposed(image: Array, strength: float, random: np.random.Generator) -> Array:
    gamma = np.exp(random.normal(0, _GAMMA * strength))
    contrast = np.exp(random.normal(0, _CONTRAST * strength))
    blur = random.uniform(0, _BLUR * strength)
    image = 255 * np.power(np.clip(image, 0, 255) / 255, gamma, dtype=np.float32)
    image = ndimage.gaussian_filter(image, blur)
    mean = float(image.mean())
    noise = random.normal(0, random.uniform(0, _NOISE * strength), image.shape)
    return np.asarray(np.clip((image - mean) * contrast + mean + noise, 0, 255), np.uint8)
