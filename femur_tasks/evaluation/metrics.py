"""How well one predicted mask covers one true mask: per case, per femur, hard masks only.

Arrays are `*_hw`: row 0 is the top, column 0 is the picture's left. `spacing_mm` is (between rows, between columns).
Left and right are the patient's, never the picture's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, spatial

from femur_tasks.errors import FemurError
from femur_tasks.evaluation.sides import Mask, binary_mask, box_of, split_picture, territories

IMPLEMENTATION: Final = "femur-metrics/3 scipy"
"""Name and version of the definitions below, stored with each evaluation: public HD95 tools disagree
(arXiv 2410.02630). Raise the number whenever a change can alter any value, also one of what is
measured: since 2 it is the mask without strays, since 3 that of the ONNX file."""

BOTH_EMPTY: Final = "both_empty"
TRUTH_EMPTY: Final = "truth_empty"
PREDICTION_EMPTY: Final = "prediction_empty"

_TREE_POINTS = 100_000

_CROSS = ndimage.generate_binary_structure(2, 1)


@dataclass(frozen=True)
class MaskMetrics:
    """Agreement of two binary masks.

    Attributes:
        dice: 2 |A and B| / (|A| + |B|), 0 to 1.
        iou: |A and B| / |A or B|, 0 to 1.
        hd95_px, assd_px: surface distances in pixels of the given masks, 0 or more. None where a mask is empty.
        hd95_pct, assd_pct: the same in per cent of the picture's height. None where a mask is empty.
        hd95_mm, assd_mm: the same in millimetres. None where a mask is empty or the spacing is unknown.
        area_truth_px, area_predicted_px: pixels set.
        flag: None, or why the distances are None: "both_empty" (dice = iou = 1), "truth_empty" or
            "prediction_empty" (dice = iou = 0).
    """

    dice: float
    iou: float
    hd95_px: float | None
    assd_px: float | None
    hd95_pct: float | None
    assd_pct: float | None
    hd95_mm: float | None
    assd_mm: float | None
    area_truth_px: int
    area_predicted_px: int
    flag: str | None


@dataclass(frozen=True)
class SideMetrics:
    """Metrics per femur of the patient; None only where the truth has no femur on that side."""

    left: MaskMetrics | None
    right: MaskMetrics | None


@dataclass(frozen=True)
class CaseMetrics:
    """Everything measured on one case.

    Attributes:
        whole: both femurs together, at full size.
        left, right: the patient's femurs apart, at full size. None where the truth has no femur on that side.
        dice_training_size: Dice at the size the network was trained at, 0 to 1.
    """

    whole: MaskMetrics
    left: MaskMetrics | None
    right: MaskMetrics | None
    dice_training_size: float


def case_metrics(
    truth_full_hw: NDArray[Any],
    predicted_full_hw: NDArray[Any],
    truth_small_hw: NDArray[Any],
    predicted_small_hw: NDArray[Any],
    spacing_mm: tuple[float, float] | None,
    *,
    picture_right_is_patient_left: bool = True,
) -> CaseMetrics:
    """Measure one case at both sizes.

    Args:
        truth_full_hw, predicted_full_hw: bool or 0/1, the radiograph's own size.
        truth_small_hw, predicted_small_hw: bool or 0/1, the training size.
        spacing_mm: of the full-size masks, (between rows, between columns); None where it is unknown.
        picture_right_is_patient_left: False only where the header says so.

    Raises:
        FemurError: as `mask_metrics`.
    """
    truth_full, predicted_full = _pair(truth_full_hw, predicted_full_hw)
    truth_small, predicted_small = _pair(truth_small_hw, predicted_small_hw)
    sides = side_metrics(
        truth_full, predicted_full, spacing_mm, picture_right_is_patient_left=picture_right_is_patient_left
    )
    return CaseMetrics(
        whole=mask_metrics(truth_full, predicted_full, spacing_mm),
        left=sides.left,
        right=sides.right,
        dice_training_size=_overlap(truth_small, predicted_small)[0],
    )


def mask_metrics(
    truth_hw: NDArray[Any], predicted_hw: NDArray[Any], spacing_mm: tuple[float, float] | None
) -> MaskMetrics:
    """Compare two masks of one picture.

    The surface S(M) of a mask is every pixel of M that has one of its four neighbours outside M or lies at the
    picture's edge: `M ^ binary_erosion(M, generate_binary_structure(2, 1))`. For each a in S(A), d(a, B) is the
    Euclidean distance to the nearest pixel centre of S(B). With both directed sets pooled into one,
    D = {d(a, B)} + {d(b, A)}::

        HD95 = 95th percentile of D, linear interpolation
        ASSD = mean of D = (sum d(a, B) + sum d(b, A)) / (|S(A)| + |S(B)|)

    This is medpy 0.5.2 `hd95` and `assd` with connectivity 1. medpy up to 0.4 took ASSD as the mean of the two
    directed means, which Metrics Reloaded calls MASD: the two differ where the surfaces differ in length.

    Args:
        truth_hw, predicted_hw: bool or 0/1, of one shape.
        spacing_mm: (between rows, between columns), may differ from each other; None where it is unknown.

    Raises:
        FemurError: the shapes differ, an array is not 2-D or not binary, or a spacing is not positive.

    Source: medpy 0.5.2, medpy/metric/binary.py; Maier-Hein et al., Metrics Reloaded, Nature Methods 21 (2024).
    """
    truth, predicted = _pair(truth_hw, predicted_hw)
    _check_spacing(spacing_mm)
    dice, iou, area_truth_px, area_predicted_px = _overlap(truth, predicted)
    flag = _flag(area_truth_px, area_predicted_px)
    hd95_px = assd_px = hd95_pct = assd_pct = hd95_mm = assd_mm = None
    if flag is None:
        # A pixel at the box's edge has background or the picture's edge beyond it: cropping keeps every surface.
        box = box_of(truth | predicted)
        surface_truth, surface_predicted = _surface(truth[box]), _surface(predicted[box])
        hd95_px, assd_px = _surface_distances(surface_truth, surface_predicted, (1.0, 1.0))
        height_px = truth.shape[0]
        hd95_pct, assd_pct = 100 * hd95_px / height_px, 100 * assd_px / height_px
        if spacing_mm is not None and spacing_mm[0] == spacing_mm[1]:
            hd95_mm, assd_mm = hd95_px * spacing_mm[0], assd_px * spacing_mm[0]
        elif spacing_mm is not None:
            hd95_mm, assd_mm = _surface_distances(surface_truth, surface_predicted, spacing_mm)
    return MaskMetrics(
        dice=dice,
        iou=iou,
        hd95_px=hd95_px,
        assd_px=assd_px,
        hd95_pct=hd95_pct,
        assd_pct=assd_pct,
        hd95_mm=hd95_mm,
        assd_mm=assd_mm,
        area_truth_px=area_truth_px,
        area_predicted_px=area_predicted_px,
        flag=flag,
    )


def side_metrics(
    truth_hw: NDArray[Any],
    predicted_hw: NDArray[Any],
    spacing_mm: tuple[float, float] | None,
    *,
    picture_right_is_patient_left: bool = True,
) -> SideMetrics:
    """Compare femur by femur, with the truth alone deciding where one side ends.

    The prediction is never taken apart by its own components: a merged, missing or extra blob would then change
    which pixels are compared. Instead every predicted pixel gets a side from the truth:

    - Two femurs: the vertical line midway between them divides the picture. It costs nothing at full size, it can be
      drawn on the picture, and prediction == truth gives Dice 1 on both sides. Where the two overlap in columns no
      such line exists, and each pixel goes to the nearer femur.
    - One femur: the other side is None. The line is the picture's midline, or an eighth of the width beyond the
      femur's inner edge where that is further. What was predicted past it counts in the whole-mask metrics only: the
      truth cannot say how good the other femur is.

    So a femur that was missed has Dice 0 and the flag "prediction_empty", and is not None.

    Args and Raises: as `mask_metrics`. `picture_right_is_patient_left` is True in an AP picture as it is hung, False
    where the header says otherwise.
    """
    truth, predicted = _pair(truth_hw, predicted_hw)
    _check_spacing(spacing_mm)
    truths = split_picture(truth)
    metrics = [
        None if side is None else mask_metrics(side, predicted & territory, spacing_mm)
        for side, territory in zip(truths, territories(truths, truth.shape), strict=True)
    ]
    picture_left, picture_right = metrics
    if picture_right_is_patient_left:
        return SideMetrics(left=picture_right, right=picture_left)
    return SideMetrics(left=picture_left, right=picture_right)


def _overlap(truth: Mask, predicted: Mask) -> tuple[float, float, int, int]:
    """Dice, IoU, area of the truth, area of the prediction. Both empty is full agreement."""
    area_truth = int(np.count_nonzero(truth))
    area_predicted = int(np.count_nonzero(predicted))
    if area_truth + area_predicted == 0:
        return 1.0, 1.0, 0, 0
    common = int(np.count_nonzero(truth & predicted))
    both = area_truth + area_predicted
    return 2 * common / both, common / (both - common), area_truth, area_predicted


def _flag(area_truth_px: int, area_predicted_px: int) -> str | None:
    if area_truth_px == 0:
        return BOTH_EMPTY if area_predicted_px == 0 else TRUTH_EMPTY
    return PREDICTION_EMPTY if area_predicted_px == 0 else None


def _surface(mask: Mask) -> Mask:
    return np.asarray(mask ^ ndimage.binary_erosion(mask, structure=_CROSS), dtype=bool)


def _surface_distances(a: Mask, b: Mask, sampling: tuple[float, float]) -> tuple[float, float]:
    """HD95 and ASSD of two surfaces, neither of them empty, in the unit of `sampling`."""
    # Outlines are few pixels of a large picture: a tree took a ninth of the time at 2860 x 2860. A noisy prediction is
    # nearly all outline, and there the distance transform, whose time hangs on the picture's size only, is faster.
    measure = _nearest_by_tree if np.count_nonzero(a) + np.count_nonzero(b) <= _TREE_POINTS else _nearest_by_transform
    distances = np.concatenate([measure(a, b, sampling), measure(b, a, sampling)])
    return float(np.percentile(distances, 95)), float(distances.mean())


def _nearest_by_tree(of: Mask, to: Mask, sampling: tuple[float, float]) -> NDArray[np.float64]:
    tree = spatial.cKDTree(np.argwhere(to) * np.asarray(sampling))
    return np.asarray(tree.query(np.argwhere(of) * np.asarray(sampling))[0], dtype=np.float64)


def _nearest_by_transform(of: Mask, to: Mask, sampling: tuple[float, float]) -> NDArray[np.float64]:
    return np.asarray(ndimage.distance_transform_edt(~to, sampling=sampling)[of], dtype=np.float64)


def _pair(truth_hw: NDArray[Any], predicted_hw: NDArray[Any]) -> tuple[Mask, Mask]:
    truth, predicted = binary_mask(truth_hw, "truth"), binary_mask(predicted_hw, "prediction")
    if truth.shape != predicted.shape:
        raise FemurError(
            f"Expected masks of one shape. Received: truth {truth.shape}, prediction {predicted.shape}.",
            "Bring the prediction back to the size of the truth first.",
        )
    return truth, predicted


def _check_spacing(spacing_mm: tuple[float, float] | None) -> None:
    if spacing_mm is None:
        return
    if len(spacing_mm) != 2 or not all(math.isfinite(step) and step > 0 for step in spacing_mm):
        raise FemurError(
            f"Expected two spacings above 0 mm. Received: {spacing_mm}.",
            "Pass None where the header holds no usable spacing.",
        )
