"""Predict: files in, the champion's masks, overlays and a table of what was found out."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from femur_tasks.errors import FemurError
from femur_tasks.serving.champion import Served
from femur_tasks.serving.inputs import OVERLAY, Input
from femur_tasks.serving.segment import Refused, read_path, segment

TABLE = "predictions"
DUPLICATE = "duplicate_name"


@dataclass(frozen=True)
class Predicted:
    """What came of one picture.

    Attributes:
        source: its path.
        mask, overlay: paths of the two files; None where it was refused.
        problem: why it was refused, as `code: text`; None where it was not.
        flags: keys of `findings.FLAGS`: look at the overlay before using the mask.
        left_px, right_px, left_mm2, right_mm2, likeness: as in `findings.Findings`.
        ms: of the picture once it was read, the overlay left out.
    """

    source: str
    mask: str | None = None
    overlay: str | None = None
    problem: str | None = None
    flags: tuple[str, ...] = ()
    left_px: int | None = None
    right_px: int | None = None
    left_mm2: float | None = None
    right_mm2: float | None = None
    likeness: float | None = None
    ms: float | None = None


def predict(
    served: Served, inputs: Sequence[Input], out: Path, on_picture: Callable[[], None] = lambda: None
) -> list[Predicted]:
    """Write mask and overlay of every picture below `out`, and `predictions.json` and `.csv` of all of them.

    A picture whose name another one has already taken is refused: its files would replace the other's. A refused one
    leaves no file.

    Raises:
        FemurError: `out` can't be written.
    """
    results: list[Predicted] = []
    taken: dict[str, Path] = {}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for one in inputs:
            first = taken.setdefault(one.name, one.path)
            if first != one.path:
                results.append(Predicted(str(one.path), problem=f"{DUPLICATE}: {first} has this name too"))
            else:
                results.append(_predict_one(served, one, out))
            on_picture()
        (out / f"{TABLE}.json").write_text(json.dumps(document(served, results), indent=1) + "\n")
        (out / f"{TABLE}.csv").write_text(_csv(results))
    except OSError as err:
        raise FemurError(
            f"Expected to write into {out}. Received: {err.strerror}.", "Make room for it, or name another folder."
        ) from err
    return results


def document(served: Served, results: Iterable[Predicted]) -> dict[str, Any]:
    """What `predictions.json` holds and `--json` prints."""
    return {
        "model": served.label,
        "dataset": served.dataset_digest,
        "likeness_limit": served.likeness.limit,
        "pictures": [asdict(result) for result in results],
    }


def _predict_one(served: Served, one: Input, out: Path) -> Predicted:
    try:
        segmented = segment(served, read_path(one.path))
    except Refused as err:
        return Predicted(str(one.path), problem=f"{err.code}: {err.what}")
    mask, drawn = out / f"{one.name}{segmented.suffix}", out / f"{one.name}{OVERLAY}"
    mask.parent.mkdir(parents=True, exist_ok=True)
    mask.write_bytes(segmented.mask_file)
    drawn.write_bytes(segmented.overlay_file())
    found = segmented.findings
    return Predicted(
        source=str(one.path),
        mask=str(mask),
        overlay=str(drawn),
        flags=found.flags,
        left_px=found.left_px,
        right_px=found.right_px,
        left_mm2=found.left_mm2,
        right_mm2=found.right_mm2,
        likeness=found.likeness,
        ms=round(segmented.ms, 1),
    )


def _csv(results: Iterable[Predicted]) -> str:
    buffer = io.StringIO()
    table = csv.DictWriter(buffer, [field.name for field in fields(Predicted)], lineterminator="\n")
    table.writeheader()
    table.writerows({**asdict(result), "flags": " ".join(result.flags)} for result in results)
    return buffer.getvalue()
