"""Contact sheets: many cases as a few pictures that a page can hold."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy import ndimage

from femur_tasks.dataset.problems import SPLITS
from femur_tasks.evaluation.overlays import TRUTH_RGB, contact_sheet
from femur_tasks.reports.ingest_facts import CaseCard, Pair

_COLUMNS: Final = 4
_PANELS: Final = 16  # four rows fit a printed page
_QUALITY: Final = 85
_LONGEST_CAPTION = 120


@dataclass(frozen=True)
class Sheet:
    """A JPEG of up to sixteen panels under a title; `alt` tells what it shows to whoever can't see it."""

    title: str
    picture: bytes
    alt: str


def card_sheets(cards: Sequence[CaseCard]) -> Iterator[Sheet]:
    """Cases with problems first, then those of each split without."""
    faulty = [card for card in cards if card.problems]
    yield from _sheets("Cases with problems", faulty, [_with_problems(card) for card in faulty])
    for split in dict.fromkeys((*SPLITS, *(card.split for card in cards))):
        sound = [card for card in cards if card.split == split and not card.problems]
        title = f"Cases of {split} without a problem" if split else "Cases without a problem"
        yield from _sheets(title, sound, [card.case_id for card in sound])


def pair_sheets(pairs: Sequence[Pair]) -> Iterator[Sheet]:
    """Both cases of a pair side by side, two pairs a row, numbered from 1."""
    cards = [card for pair in pairs for card in (pair.first, pair.second)]
    captions = [f"{index // 2 + 1}: {card.case_id}" for index, card in enumerate(cards)]
    return _sheets("Pairs side by side", cards, captions)


def _sheets(title: str, cards: Sequence[CaseCard], captions: Sequence[str]) -> Iterator[Sheet]:
    parts = range(0, len(cards), _PANELS)
    for number, start in enumerate(parts, 1):
        texts = [caption[:_LONGEST_CAPTION] for caption in captions[start : start + _PANELS]]
        panels = [_outlined(card) for card in cards[start : start + _PANELS]]
        buffer = io.BytesIO()
        # colour at full size, else the thin outline greys
        contact_sheet(panels, texts, _COLUMNS).save(buffer, format="JPEG", quality=_QUALITY, subsampling=0)
        yield Sheet(
            f"{title}, sheet {number} of {len(parts)}" if len(parts) > 1 else title,
            buffer.getvalue(),
            "Radiographs with the annotated femur outlined in blue: " + "; ".join(texts),
        )


def _with_problems(card: CaseCard) -> str:
    return f"{card.case_id} {', '.join(dict.fromkeys(problem.code for problem in card.problems))}"


def _outlined(card: CaseCard) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The picture with the outline of its mask, which lies inside the mask."""
    canvas = np.repeat(card.image_hw[:, :, np.newaxis], 3, axis=2)
    canvas[card.mask_hw & ~ndimage.binary_erosion(card.mask_hw)] = TRUTH_RGB
    return canvas
