"""`femur predict`: the champion put to use."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from femur_tasks.cli.show import AsJson, bars, err, print_json, print_table
from femur_tasks.errors import Rejected
from femur_tasks.parameters import RUNTIMES, PredictParameters

if TYPE_CHECKING:
    from femur_tasks.serving.predict import Predicted

_FIELDS = PredictParameters.model_fields


def predict(
    inputs: Annotated[list[Path], typer.Argument(help="NIfTI, PNG, JPEG, TIFF or DICOM pictures, or folders of them.")],
    folder: Annotated[Path, typer.Option("--out", help="Folder for masks, overlays and predictions.json and .csv.")],
    model: Annotated[str, typer.Option(help=_FIELDS["model"].description)] = _FIELDS["model"].default,
    runtime: Annotated[str, typer.Option(metavar="|".join(RUNTIMES), help=_FIELDS["runtime"].description)] = _FIELDS[
        "runtime"
    ].default,
    as_json: AsJson = False,
) -> None:
    """Segment pictures with the champion: mask in the picture's own geometry, and an overlay to look at.

    The mask of a NIfTI has its header, that of any other picture is a PNG of
    its size. Flags say which masks a person should look at first. Exits with
    2 when a picture was refused and has no mask; the others are done all the
    same. Flags alone leave the exit code at 0.

    Examples:

      femur predict picture.nii.gz --out masks
      femur predict xrays/test/imgs pacs/ --out masks --model hip --json
    """
    asked = PredictParameters.model_validate({"model": model, "runtime": runtime})
    from femur_tasks.serving.champion import serve
    from femur_tasks.serving.inputs import find_inputs
    from femur_tasks.serving.predict import document
    from femur_tasks.serving.predict import predict as predict_all
    from femur_tasks.steps.context import open_context

    found, context = find_inputs(inputs, folder), open_context()
    served = serve(context.registry, context.store, asked.model, asked.runtime, context.settings.cache_folder)
    started = time.perf_counter()
    with bars() as advance:
        results = predict_all(served, found, folder, on_picture=lambda: advance("pictures", None, len(found)))
    seconds = time.perf_counter() - started
    if as_json:
        print_json(document(served, results))
    else:
        _show(f"Masks and overlays in {folder}, by {served.label}", results)
    err.print(f"pictures: {len(results)} in {seconds:.1f} s, {len(results) / seconds:.1f} a second", highlight=False)
    err.print("Research use, not for diagnosis.")
    if refused := sum(result.problem is not None for result in results):
        raise Rejected(f"{refused} of {len(results)} pictures were refused.", "predictions.json in --out names each.")


def _show(title: str, results: Sequence[Predicted]) -> None:
    from femur_tasks.serving.findings import FLAGS

    rows = [
        (
            Path(result.source).name,
            _area(result.left_px, result.left_mm2),
            _area(result.right_px, result.right_mm2),
            result.problem or ", ".join(result.flags),
        )
        for result in results
    ]
    print_table(title, ("picture", "left femur", "right femur", "flags, or why it was refused"), rows)
    counts = Counter(flag for result in results for flag in result.flags)
    if counts:
        meanings = [(flag, str(count), FLAGS[flag]) for flag, count in counts.items()]
        print_table("Look at these overlays before using their masks", ("flag", "times", "meaning"), meanings)


def _area(area_px: int | None, area_mm2: float | None) -> str:
    if area_px is None:
        return ""
    return f"{area_px:,} px" if area_mm2 is None else f"{area_mm2 / 100:,.1f} cm²"
