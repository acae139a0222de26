"""Serving a proven champion: by ONNX without TensorFlow, by Keras the same masks, and never one that is not proven."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from onnx import TensorProto, helper
from sqlalchemy import update

from femur_tasks.dataset.likeness import MIN_CASES
from femur_tasks.dataset.resize import enlarge_probability
from femur_tasks.errors import DigestMismatch, FemurError, NotFound
from femur_tasks.evaluation.strays import THRESHOLD, without_strays
from femur_tasks.parameters import IngestParameters, Runtime
from femur_tasks.registry.tables import Champion, ModelVersion
from femur_tasks.serving.champion import Served, serve
from femur_tasks.serving.inputs import find_inputs
from femur_tasks.serving.predict import predict
from femur_tasks.serving.runtime import Probability, by_onnx
from femur_tasks.settings import CHECKOUT
from femur_tasks.signing import BadSignature
from femur_tasks.steps.context import Context
from femur_tasks.steps.ingest import ingest
from femur_tasks.steps.signatures import sign_stored
from femur_tasks.storage import MemoryStore, digest_in
from femur_tasks.training import artefact, exchange, networks
from femur_tasks.training.hyperparameters import TUNED
from tests import registry_rows as rows
from tests.radiographs import Array, write_reference

SIZE = 32
SPLITS = {**dict.fromkeys("ABCFGH", "train"), "D": "valid", "E": "test"}
_LOADED = """
import json, sys
from pathlib import Path
import femur_tasks.cli, femur_tasks.serving.champion, femur_tasks.serving.predict, femur_tasks.steps.pictures
import numpy as np
from femur_tasks.serving.runtime import by_onnx
by_onnx(Path(sys.argv[1]).read_bytes())(np.zeros((32, 32), np.uint8))
print(json.dumps([name for name in ("tensorflow", "keras", "airflow") if name in sys.modules]))
"""


@pytest.fixture(scope="module")
def files() -> tuple[bytes, bytes]:
    """A network's artefact and ONNX file; a step of training gives it weights of its own."""
    network = networks.compiled("unet", SIZE, TUNED, 7, 10)
    images = np.float32(np.random.default_rng(3).integers(0, 256, (4, SIZE, SIZE, 1)))
    network.train_on_batch(images, np.float32(images > 128))
    network = networks.in_float32(network, "unet", SIZE, TUNED)
    return artefact.pack(network, artefact.Spec("unet", SIZE, TUNED.as_dict())), exchange.to_onnx(network)


@pytest.fixture
def pictures(context: Context, files: tuple[bytes, bytes], tmp_path: Path) -> Path:
    """A signed champion of femur, and the folder of its dataset."""
    source = write_reference(tmp_path / "data", SPLITS)
    digest = str(ingest(context, IngestParameters(path=str(source), size=SIZE)).digest)
    key, onnx_key = (context.store.put(data, kind) for data, kind in zip(files, ("artefacts", "onnx"), strict=True))
    with context.registry.writing() as session:
        names = {"artefact_key": key, "artefact_sha256": digest_in(key), "size": SIZE}
        onnx = {"onnx_key": onnx_key, "onnx_sha256": digest_in(onnx_key)}
        model_id = rows.model_version(session, 1, digest, **names, **onnx).id
    sign_stored(context, model_id)
    with context.registry.writing() as session:
        session.add(Champion(model="femur", model_version_id=model_id, since=context.now()))
    return source


def loaded(context: Context, runtime: Runtime = "onnx") -> Served:
    return serve(context.registry, context.store, "femur", runtime, context.settings.cache_folder)


def test_both_runtimes_write_the_same_masks(context: Context, pictures: Path, tmp_path: Path) -> None:
    masks, seen = {}, []
    for runtime in ("onnx", "keras"):
        out, served = tmp_path / runtime, loaded(context, runtime)

        def seeing(image_hw: Array, by: Probability = served.probability) -> Array:
            seen.append(by(image_hw))
            return seen[-1]

        found = predict(replace(served, probability=seeing), find_inputs([pictures / "train/imgs"], out), out)
        masks[runtime] = np.stack([np.asarray(nib.load(str(one.mask)).dataobj).T == 1 for one in found])
    shape_hw = masks["onnx"].shape[1:]
    decided = np.stack(
        [abs(enlarge_probability(without_strays(one), *shape_hw) - THRESHOLD) > 1e-4 for one in seen[: len(found)]]
    )
    assert decided.mean() > 0.99, "the last digits of a probability decide of hardly any pixel"
    np.testing.assert_array_equal(masks["onnx"][decided], masks["keras"][decided])
    assert len(np.unique(masks["onnx"], axis=0)) > 1


def test_onnx_loads_no_tensorflow(files: tuple[bytes, bytes], tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(files[1])
    done = subprocess.run(  # noqa: S603 - our own interpreter and script
        [sys.executable, "-c", _LOADED, tmp_path / "model.onnx"], capture_output=True, text=True, cwd=CHECKOUT
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


def test_what_the_training_cases_look_like_is_learned_once(context: Context, pictures: Path) -> None:
    first = loaded(context)
    assert first.likeness.hips_nd.shape == (len(SPLITS) - 1, 256), "all but the test case"
    assert len(first.likeness.hips_nd) >= MIN_CASES
    assert first.likeness.limit is not None
    store = context.store
    assert isinstance(store, MemoryStore)
    for shard in list(store.list("shards/")):
        store.delete(shard.key)
    again = loaded(context)
    np.testing.assert_array_equal(again.likeness.hips_nd, first.likeness.hips_nd)
    (kept,) = context.settings.cache_folder.iterdir()
    kept.write_bytes(b"damaged")
    with pytest.raises(NotFound):  # what is damaged is made anew, from what is not there any more
        loaded(context)


def test_champion_whose_row_was_changed_does_not_predict(context: Context, pictures: Path) -> None:
    other = context.store.put(b"another model", "onnx")
    with context.registry.writing() as session:
        session.connection().exec_driver_sql("drop trigger model_version_refuses_update")
        session.execute(update(ModelVersion).values(onnx_key=other))
    with pytest.raises(BadSignature):
        loaded(context)


@pytest.mark.parametrize("runtime", ["onnx", "keras"])
def test_champion_whose_file_was_changed_does_not_predict(context: Context, pictures: Path, runtime: Runtime) -> None:
    with context.registry.reading() as session:
        version = session.get_one(ModelVersion, 1)
        key = str(version.onnx_key if runtime == "onnx" else version.artefact_key)
    context.store.put_named(b"other bytes", key)
    with pytest.raises(DigestMismatch):
        loaded(context, runtime)


def test_model_without_champion_is_not_found(context: Context) -> None:
    with pytest.raises(NotFound, match="champion of model femur"):
        loaded(context)


def test_bytes_that_are_no_onnx_model_are_told() -> None:
    with pytest.raises(FemurError, match="Expected an ONNX model"):
        by_onnx(b"no model")


@pytest.mark.parametrize("place", ["initializer", "constant", "branch"])
def test_onnx_file_that_would_read_other_files_is_refused(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime takes weights from a file that the model names: a trainer's model could carry a key away."""
    (tmp_path / "secret").write_bytes(bytes(4))
    monkeypatch.chdir(tmp_path)
    tensor = TensorProto(name="w", dims=[1], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "secret"), ("offset", "0"), ("length", "4")):
        tensor.external_data.add(key=key, value=value)
    told = [helper.make_tensor_value_info("probability", TensorProto.FLOAT, [1])]
    constant = helper.make_node("Constant", [], ["probability"], value=tensor)
    branch = helper.make_graph([constant], "branch", [], told)
    true = helper.make_tensor("true", TensorProto.BOOL, [], [True])
    nodes, initializers = {
        "initializer": ([helper.make_node("Identity", ["w"], ["probability"])], [tensor]),
        "constant": ([constant], []),
        "branch": ([helper.make_node("If", ["true"], ["probability"], then_branch=branch, else_branch=branch)], [true]),
    }[place]
    graph = helper.make_graph(nodes, "graph", [], told, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(FemurError, match="weights in other files"):
        by_onnx(model.SerializeToString())
