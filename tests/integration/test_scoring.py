"""Scoring and predicting with a real network: what the rows say is worked out again from the original files."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select

from femur_tasks.evaluation.strays import without_strays
from femur_tasks.parameters import IngestParameters
from femur_tasks.registry.tables import Champion, ComparisonManifest, EvaluationCase, ModelVersion
from femur_tasks.serving.champion import Served, serve
from femur_tasks.serving.inputs import find_inputs
from femur_tasks.serving.predict import predict
from femur_tasks.serving.runtime import by_onnx
from femur_tasks.signing import BadSignature
from femur_tasks.steps.context import Context
from femur_tasks.steps.evaluate import evaluate
from femur_tasks.steps.ingest import ingest
from femur_tasks.steps.signatures import sign_stored
from femur_tasks.storage import digest_in
from femur_tasks.training import artefact, exchange, networks
from femur_tasks.training.hyperparameters import REFERENCE_UNET
from tests import registry_rows as rows
from tests.radiographs import Array, write_reference

SIZE = 32
TESTS = ("E", "F", "G")
SPLITS = {"A": "train", "B": "train", "D": "valid", **dict.fromkeys(TESTS, "test")}


def registered(context: Context, version: int, digest: str, seed: int, sha256: str | None = None) -> int:
    """A model version of an untrained network: its noise is a prediction like any other."""
    model = networks.compiled("unet", SIZE, REFERENCE_UNET, seed)
    key = context.store.put(artefact.pack(model, artefact.Spec("unet", SIZE, REFERENCE_UNET.as_dict())), "artefacts")
    onnx_key = context.store.put(exchange.to_onnx(model), "onnx")
    with context.registry.writing() as session:
        values = {"artefact_key": key, "artefact_sha256": sha256 or digest_in(key), "size": SIZE}
        onnx = {"onnx_key": onnx_key, "onnx_sha256": digest_in(onnx_key)}
        return rows.model_version(session, version, digest, **values, **onnx).id


def ingested(context: Context, folder: Path, splits: dict[str, str], dataset: str = "femur") -> str:
    source = write_reference(folder, splits)
    return str(ingest(context, IngestParameters(path=str(source), dataset=dataset, size=SIZE)).digest)


def expected_mask(context: Context, model_id: int, image: Path) -> Array:
    """The champion's mask of a file, by nibabel and Pillow alone but for what lies away from both femurs."""
    with context.registry.reading() as session:
        key = str(session.get_one(ModelVersion, model_id).onnx_key)
    picture = Image.fromarray(np.asarray(nib.load(image).dataobj).T)
    small = np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BOX))
    probability = Image.fromarray(without_strays(by_onnx(context.store.get(key))(small)), mode="F")
    return np.asarray(probability.resize(picture.size, Image.Resampling.BILINEAR)) > 0.5


def served(context: Context, folder: Path) -> Served:
    return serve(context.registry, context.store, "femur", "onnx", folder / "cache")


def test_every_row_is_the_dice_of_its_own_case_at_full_size(context: Context, tmp_path: Path) -> None:
    digest = ingested(context, tmp_path, SPLITS)
    model_id = registered(context, 1, digest, seed=1)
    assert evaluate(context, "femur-run-1") == {"challenger": "femur:1", "champion": "", "cases": 3}
    with context.registry.reading() as session:
        found = {row.case_id: row.dice for row in session.scalars(select(EvaluationCase))}
    assert set(found) == set(TESTS)
    for case_id in TESTS:
        mask = expected_mask(context, model_id, tmp_path / "test/imgs" / f"{case_id}.nii.gz")
        truth = np.asarray(nib.load(tmp_path / "test/targets" / f"{case_id}.nii.gz").dataobj).T == 1
        assert found[case_id] == pytest.approx(2 * (mask & truth).sum() / (mask.sum() + truth.sum()), abs=1e-9)
    assert len(set(found.values())) == len(TESTS), "or a mix-up of cases would not show"


@pytest.mark.parametrize("its_split", ["train", "valid"])
def test_case_that_shaped_the_champion_is_left_out(context: Context, tmp_path: Path, its_split: str) -> None:
    before = ingested(context, tmp_path / "before", {**SPLITS, "E": its_split}, dataset="other")
    champion_id = registered(context, 1, before, seed=1)
    with context.registry.writing() as session:
        session.add(Champion(model="femur", model_version_id=champion_id, since=context.now()))
    registered(context, 2, ingested(context, tmp_path / "now", SPLITS), seed=2)
    assert evaluate(context, "femur-run-2") == {"challenger": "femur:2", "champion": "femur:1", "cases": 2}
    with context.registry.reading() as session:
        manifest = session.scalars(select(ComparisonManifest)).one()
        assert (manifest.excluded, [case[0] for case in manifest.cases]) == (["E"], ["F", "G"])


def test_predict_writes_the_champions_mask_in_the_pictures_own_geometry(context: Context, tmp_path: Path) -> None:
    model_id = registered(context, 1, ingested(context, tmp_path / "data", SPLITS), seed=1)
    sign_stored(context, model_id)
    with context.registry.writing() as session:
        session.add(Champion(model="femur", model_version_id=model_id, since=context.now()))
    image = tmp_path / "data/test/imgs/E.nii.gz"
    (found,) = predict(served(context, tmp_path), find_inputs([image], tmp_path / "out"), tmp_path / "out")
    written = nib.load(str(found.mask))
    np.testing.assert_array_equal(np.asarray(written.dataobj).T > 0, expected_mask(context, model_id, image))
    np.testing.assert_array_equal(written.affine, nib.load(image).affine)
    assert Path(str(found.overlay)).stat().st_size > 0


@pytest.mark.parametrize("is_signed", [True, False], ids=["another artefact", "never signed"])
def test_champion_that_is_not_proven_does_not_predict(context: Context, tmp_path: Path, is_signed: bool) -> None:
    sha256 = "0" * 64 if is_signed else None
    model_id = registered(context, 1, ingested(context, tmp_path / "data", SPLITS), seed=1, sha256=sha256)
    if is_signed:
        sign_stored(context, model_id)
    with context.registry.writing() as session:
        session.add(Champion(model="femur", model_version_id=model_id, since=context.now()))
    with pytest.raises(BadSignature):
        served(context, tmp_path)
