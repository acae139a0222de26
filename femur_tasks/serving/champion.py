"""The champion in service: proven, loaded, and with what its training cases look like."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from femur_tasks.dataset.likeness import NAME, Likeness, hips, learned
from femur_tasks.dataset.manifest import Manifest
from femur_tasks.dataset.resize import shrink_image, shrink_mask
from femur_tasks.dataset.shards import unpack
from femur_tasks.errors import NotFound
from femur_tasks.parameters import Runtime
from femur_tasks.registry.database import Registry
from femur_tasks.registry.promotion import champion_of
from femur_tasks.registry.signatures import check_signature, refuse_collected
from femur_tasks.registry.tables import DatasetVersion, ModelVersion
from femur_tasks.serving.runtime import Probability, by_keras, by_onnx
from femur_tasks.storage import ObjectStore

MOST_CASES = 512
"""Cases that are learned from: the first ones, a split being in no order of looks."""


@dataclass(frozen=True)
class Served:
    """A champion that predicts.

    Attributes:
        size: edge of the square picture that the network sees, px.
        dataset_digest: the version that it was trained on.
    """

    model_id: int
    label: str
    size: int
    dataset_digest: str
    probability: Probability
    likeness: Likeness


def serve(registry: Registry, store: ObjectStore, model: str, runtime: Runtime, cache: Path) -> Served:
    """Load the champion of `model`.

    Args:
        cache: folder in which what its training cases look like is kept: learning it reads all of them.

    Raises:
        NotFound: the model has no champion, or it has no ONNX file.
        BadSignature: the champion's row is not the one that was signed.
        DigestMismatch: its file is not the one that was registered.
        WasCollected: its files are gone.
    """
    with registry.reading() as session:
        champion = champion_of(session, model)
        if champion is None:
            raise NotFound(f"Expected a champion of model {model}. Received: none.", "Run `femur retrain` first.")
        check_signature(session, champion)
        refuse_collected(session, champion)
        key = _key(champion, runtime)
        manifest_key = _manifest_key(session, champion)
        told = (champion.id, champion.label, champion.size, champion.dataset_digest)
    data = store.get(key)
    probability = by_onnx(data) if runtime == "onnx" else by_keras(data)
    _, _, size, digest = told
    path = cache / f"likeness-{digest[:32]}-{size}-{NAME}.npy"
    return Served(*told, probability, learned(_kept(path, store, manifest_key, size)))


def _key(champion: ModelVersion, runtime: Runtime) -> str:
    if runtime == "keras":
        return champion.artefact_key
    if champion.onnx_key is None:
        raise NotFound(f"Expected an ONNX file of {champion.label}. Received: none.", "Use --runtime keras.")
    return champion.onnx_key


def _manifest_key(session: Session, champion: ModelVersion) -> str:
    return session.get_one(DatasetVersion, champion.dataset_digest).manifest_key


def _kept(path: Path, store: ObjectStore, manifest_key: str, size: int) -> NDArray[np.float32]:
    try:
        return np.asarray(np.load(path, allow_pickle=False), np.float32)
    except (OSError, ValueError, EOFError):  # not there yet, or damaged: it is made anew
        found = training_hips(store, manifest_key, size)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with part.open("wb") as file:
        np.save(file, found)
    part.replace(path)
    return found


def training_hips(store: ObjectStore, manifest_key: str, size: int) -> NDArray[np.float32]:
    """(n, d) hips of the cases that shaped a model, at the size that it sees; those without a femur are left out.

    Validation cases are among them: they chose its epoch. Test cases stay unseen.
    """
    manifest = Manifest.from_json(store.get(manifest_key))
    found: list[NDArray[np.float32]] = []
    for key in (*manifest.shard_keys("train"), *manifest.shard_keys("val")):
        shard = unpack(store.get(key))
        pairs = zip(shard.images_bhw, shard.masks_bhw, strict=True)
        found += [
            hips(shrink_image(image, size), shrink_mask(mask, size).astype(bool)) for image, mask in pairs if mask.any()
        ]
        if len(found) >= MOST_CASES:
            break
    return np.stack(found[:MOST_CASES]) if found else np.zeros((0, 0), np.float32)
