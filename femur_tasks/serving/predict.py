"""Predict: the champion's mask of a picture, in the picture's own geometry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from femur_tasks.dataset.checks import problems_of_pixels
from femur_tasks.dataset.intensity import to_grey
from femur_tasks.dataset.picture import Array
from femur_tasks.dataset.pictures.nifti import like_input, read_file
from femur_tasks.dataset.problems import Faulty
from femur_tasks.dataset.resize import enlarge_probability, shrink_image
from femur_tasks.errors import NotFound
from femur_tasks.evaluation.overlays import overlay, png_bytes
from femur_tasks.registry.database import Registry
from femur_tasks.registry.promotion import champion_of
from femur_tasks.registry.signatures import check_signature
from femur_tasks.storage import ObjectStore

SUFFIXES = (".nii.gz", ".nii")
MASK_SUFFIX = "_mask.nii.gz"


@dataclass(frozen=True)
class Predicted:
    """What came of one picture: two files, or the problem that it has."""

    source: str
    mask: str | None
    overlay: str | None
    femur_px: int
    problem: str | None


def find_inputs(paths: Sequence[Path], out: Path) -> list[Path]:
    """The NIfTI files among `paths` and in the folders among them, in order; masks in `out` are earlier results.

    Raises:
        NotFound: a path that is not there, or no picture at all.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise NotFound(f"Expected a picture or a folder. Received: {path}, which is not there.")
        inside = sorted(path.rglob("[!.]*")) if path.is_dir() else [path]
        found += [
            file
            for file in inside
            if file.is_file() and (file == path or (file.name.endswith(SUFFIXES) and not _is_result(file, out)))
        ]
    if not found:
        raise NotFound(f"Expected .nii or .nii.gz files. Received: none in {', '.join(map(str, paths))}.")
    return found


def _is_result(file: Path, out: Path) -> bool:
    return file.name.endswith(MASK_SUFFIX) and file.resolve().parent == out.resolve()


def predict(
    registry: Registry,
    store: ObjectStore,
    model: str,
    inputs: Sequence[Path],
    out: Path,
    on_picture: Callable[[], None] = lambda: None,
) -> list[Predicted]:
    """Write `<name>_mask.nii.gz` and `<name>_overlay.png` for every picture, by the champion of `model`.

    A picture whose name another one has already taken is a problem: its files would replace the other's.

    Raises:
        NotFound: the model has no champion.
        BadSignature: the champion's row is not the one that was signed.
        DigestMismatch: the champion's artefact is not the one that was registered.
    """
    from femur_tasks.training import artefact
    from femur_tasks.training.fit import probabilities

    with registry.reading() as session:
        champion = champion_of(session, model)
        if champion is None:
            raise NotFound(f"Expected a champion of model {model}. Received: none.", "Run `femur retrain` first.")
        check_signature(session, champion)
        key = champion.artefact_key
    network, spec = artefact.unpack(store.get(key))
    return _predict_all(
        inputs, out, lambda grey: probabilities(network, shrink_image(grey, spec.size)[None])[0], on_picture
    )


def _predict_all(
    inputs: Sequence[Path], out: Path, probability: Callable[[Array], Array], on_picture: Callable[[], None]
) -> list[Predicted]:
    out.mkdir(parents=True, exist_ok=True)
    results = []
    taken: dict[str, Path] = {}
    for path in inputs:
        name = path.name.removesuffix(".gz").removesuffix(".nii")
        if taken.setdefault(name, path) != path:
            results.append(Predicted(str(path), None, None, 0, f"duplicate_name: {taken[name]} has this name too"))
        else:
            results.append(_predict_one(path, out / name, probability))
        on_picture()
    return results


def _predict_one(path: Path, stem: Path, probability: Callable[[Array], Array]) -> Predicted:
    try:
        raw, picture = read_file(path)
    except Faulty as err:
        return Predicted(str(path), None, None, 0, err.what)
    problems = problems_of_pixels(path.name, picture.pixels_hw)
    if problems:
        return Predicted(str(path), None, None, 0, f"{problems[0].code}: {problems[0].found}")
    grey, _ = to_grey(picture.pixels_hw)
    mask = enlarge_probability(probability(grey), *grey.shape) > 0.5
    mask_file, overlay_file = Path(f"{stem}_mask.nii.gz"), Path(f"{stem}_overlay.png")
    mask_file.write_bytes(like_input(mask, raw))
    overlay_file.write_bytes(png_bytes(overlay(grey, mask)))
    return Predicted(str(path), str(mask_file), str(overlay_file), int(mask.sum()), None)
