"""Pictures of where a prediction lies on a radiograph. Never mirrored: column 0 stays at the picture's left."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from femur_tasks.errors import FemurError
from femur_tasks.evaluation.sides import Mask, binary_mask

# Orange and sky blue stay apart under every common colour blindness (Okabe and Ito, 2008). The darker blue of that
# palette vanishes on the soft tissue of an X-ray.
PREDICTION_RGB: Final = (230, 159, 0)
TRUTH_RGB: Final = (86, 180, 233)

_AGREED_TINT = 0.15
_DISAGREED_TINT = 0.55
_LINE_SHARE = 1 / 256
_CROSS = ndimage.generate_binary_structure(2, 1)

Rgb = NDArray[np.uint8]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def overlay(image_hw: NDArray[np.uint8], predicted_hw: NDArray[Any], truth_hw: NDArray[Any] | None = None) -> Rgb:
    """Draw the prediction, and the truth where there is one, on a radiograph.

    The prediction has a faint orange fill and an orange outline, the truth a blue outline. Pixels that only one of
    the two has are filled strongly in that one's colour. Outlines lie inside their masks and grow with the picture,
    so that a full-size overlay is still legible when shrunk to 256.

    Args:
        image_hw: grey values 0 to 255.
        predicted_hw, truth_hw: bool or 0/1, of the image's shape. None where the truth is unknown.

    Returns:
        (height, width, 3), uint8, of the image's size.

    Raises:
        FemurError: the image is not 2-D uint8, or a mask is not binary or not of the image's
            shape.
    """
    image = np.asarray(image_hw)
    if image.ndim != 2 or image.dtype != np.uint8:
        raise FemurError(
            f"Expected an image of shape (height, width), uint8. Received: {image.shape}, {image.dtype}.",
            "Scale the grey values to 0 to 255 first.",
        )
    predicted = _mask_like(predicted_hw, image, "prediction")
    truth = None if truth_hw is None else _mask_like(truth_hw, image, "truth")
    line_px = max(1, round(max(image.shape) * _LINE_SHARE))

    canvas = np.repeat(image[:, :, np.newaxis], 3, axis=2)
    if truth is None:
        _tint(canvas, predicted, PREDICTION_RGB, _AGREED_TINT)
        _tint(canvas, _outline(predicted, line_px), PREDICTION_RGB, 1.0)
        return canvas
    _tint(canvas, predicted & truth, PREDICTION_RGB, _AGREED_TINT)
    _tint(canvas, predicted & ~truth, PREDICTION_RGB, _DISAGREED_TINT)
    _tint(canvas, truth & ~predicted, TRUTH_RGB, _DISAGREED_TINT)
    _tint(canvas, _outline(predicted, line_px), PREDICTION_RGB, 1.0)
    _tint(canvas, _outline(truth, line_px), TRUTH_RGB, 1.0)
    return canvas


def contact_sheet(
    panels: Sequence[NDArray[np.uint8]], captions: Sequence[str], columns: int, panel_px: int = 256
) -> Image.Image:
    """Lay panels out row by row, each with its caption below.

    Args:
        panels: (height, width) or (height, width, 3), uint8, of any size: each is fitted into a square of `panel_px`
            with its proportions kept.
        captions: one a panel; broken into two lines where it is wider than the panel, the second cut with an ellipsis.
        columns: 1 or more; fewer are used when there are fewer panels.
        panel_px: 16 or more.

    Raises:
        FemurError: no panel, another number of captions, or a panel or number out of range.
    """
    if not panels or len(panels) != len(captions):
        raise FemurError(
            f"Expected one caption for each of one or more panels. Received: {len(panels)} panels, "
            f"{len(captions)} captions.",
            "Pass an empty text for a panel without a caption.",
        )
    if columns < 1 or panel_px < 16:
        raise FemurError(
            f"Expected at least 1 column and panels of 16 px. Received: {columns} columns, {panel_px} px.",
            "Choose larger numbers.",
        )
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    gap_px = max(4, panel_px // 32)
    text_px = max(11, panel_px // 18)
    font = ImageFont.load_default(size=text_px)
    texts = [_wrapped(caption, font, panel_px) for caption in captions]
    line_px = text_px + gap_px // 2
    cell_width = panel_px + gap_px
    cell_height = panel_px + max(len(lines) for lines in texts) * line_px + gap_px
    sheet = Image.new("RGB", (columns * cell_width + gap_px, rows * cell_height + gap_px), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (panel, lines) in enumerate(zip(panels, texts, strict=True)):
        left = gap_px + index % columns * cell_width
        top = gap_px + index // columns * cell_height
        sheet.paste("black", (left, top, left + panel_px, top + panel_px))
        picture = _fitted(_picture(panel), panel_px)
        sheet.paste(picture, (left + (panel_px - picture.width) // 2, top + (panel_px - picture.height) // 2))
        for number, line in enumerate(lines):
            draw.text((left, top + panel_px + number * line_px + gap_px // 4), line, fill="black", font=font)
    return sheet


def png_bytes(picture: Image.Image | NDArray[np.uint8]) -> bytes:
    """Encode a sheet, an overlay or a grey image without loss; the same pixels give the same bytes.

    Raises:
        FemurError: an array is not (height, width) or (height, width, 3) of uint8.
    """
    image = picture if isinstance(picture, Image.Image) else _picture(picture)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _tint(canvas: Rgb, where: Mask, colour: tuple[int, int, int], share: float) -> None:
    """Mix `colour` into the canvas, in place; a share of 1 covers it."""
    mixed = canvas[where] * (1 - share) + np.asarray(colour) * share
    canvas[where] = np.rint(mixed).astype(np.uint8)


def _outline(mask: Mask, line_px: int) -> Mask:
    inner = ndimage.binary_erosion(mask, structure=_CROSS, iterations=line_px)
    return np.asarray(mask & ~inner, dtype=bool)


def _mask_like(mask_hw: NDArray[Any], image: NDArray[np.uint8], name: str) -> Mask:
    mask = binary_mask(mask_hw, name)
    if mask.shape != image.shape:
        raise FemurError(
            f"Expected a {name} of the image's shape {image.shape}. Received: {mask.shape}.",
            "Bring the mask back to the image's size first.",
        )
    return mask


def _picture(panel: NDArray[np.uint8]) -> Image.Image:
    array = np.asarray(panel)
    is_grey = array.ndim == 2
    is_rgb = array.ndim == 3 and array.shape[2] == 3
    if not (is_grey or is_rgb) or array.dtype != np.uint8 or array.size == 0:
        raise FemurError(
            f"Expected (height, width) or (height, width, 3), uint8. Received: {array.shape}, {array.dtype}.",
            "Pass what overlay() returns, or a grey image.",
        )
    return Image.fromarray(np.ascontiguousarray(array)).convert("RGB")


def _fitted(picture: Image.Image, panel_px: int) -> Image.Image:
    scale = panel_px / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture if size == picture.size else picture.resize(size, Image.Resampling.LANCZOS)


def _wrapped(caption: str, font: Font, width_px: int) -> list[str]:
    """One or two lines, broken between words, the last one cut with an ellipsis where it is still too wide."""
    words = caption.split()
    first = len(words)
    while first > 1 and font.getlength(" ".join(words[:first])) > width_px:
        first -= 1
    lines = [" ".join(words[:first]), " ".join(words[first:])]
    return [_cut(line, font, width_px) for line in lines if line]


def _cut(text: str, font: Font, width_px: int) -> str:
    if font.getlength(text) <= width_px:
        return text
    while text and font.getlength(text + "…") > width_px:
        text = text[:-1]
    return text.rstrip() + "…"
