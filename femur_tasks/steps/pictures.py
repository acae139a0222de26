"""The ledger of pictures under `incoming-images/`: each is predicted once, by name and content, and its findings kept.

A picture is named `incoming-images/<model>/...`; the champion of that model predicts it, of `femur` where no folder
says which. It waits until it is settled: whoever is killed before that leaves it waiting.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from sqlalchemy import func, select

from femur_tasks.errors import NotFound
from femur_tasks.registry.tables import Champion, IncomingPicture, PredictionRun
from femur_tasks.serving.champion import Served, serve
from femur_tasks.serving.segment import Refused, Segmented, read_bytes, segment
from femur_tasks.steps.context import Context
from femur_tasks.storage import StoredObject

INCOMING_IMAGES = "incoming-images/"
MAX_TRIES = 3
_DEFAULT_MODEL = "femur"


def look_for_pictures(context: Context) -> dict[str, dict[str, int]]:
    """Enter what is new under `incoming-images/` into the ledger, and forget what went away unseen.

    Returns:
        `waiting`: pictures by model, of the models that have a champion; `without_champion`: of the others, whose
        pictures go on waiting.
    """
    found = {(stored.key, stored.etag): stored for stored in context.store.list(INCOMING_IMAGES) if stored.size}
    with context.registry.writing() as session:
        entered = session.execute(select(IncomingPicture.key, IncomingPicture.etag, IncomingPicture.state))
        known = {(key, etag): state for key, etag, state in entered}
        for name, state in known.items():
            if state == "waiting" and name not in found:  # there is nothing to settle
                session.delete(session.get_one(IncomingPicture, name))
        session.add_all(_waiting(stored, context.now()) for name, stored in found.items() if name not in known)
    with context.registry.reading() as session:
        counts = session.execute(
            select(IncomingPicture.model, func.count())
            .where(IncomingPicture.state == "waiting")
            .group_by(IncomingPicture.model)
            .order_by(IncomingPicture.model)
        )
        models = set(session.scalars(select(Champion.model)))
        waiting = dict(counts.all())
    return {
        "waiting": {model: count for model, count in waiting.items() if model in models},
        "without_champion": {model: count for model, count in waiting.items() if model not in models},
    }


def _waiting(stored: StoredObject, now: Any) -> IncomingPicture:
    parts = PurePosixPath(stored.key.removeprefix(INCOMING_IMAGES)).parts
    return IncomingPicture(
        key=stored.key,
        etag=stored.etag,
        size_bytes=stored.size,
        model=parts[0] if len(parts) > 1 else _DEFAULT_MODEL,
        state="waiting",
        tries=0,
        problem="",
        flags=[],
        seen_at=now,
    )


def predict_waiting(
    context: Context, run_id: str, model: str, on_picture: Callable[[int], None] = lambda total: None
) -> int:
    """Predict every picture that waits for this model and settle each as it is done; a retry goes on with the rest.

    A picture whose reading has ended the process `MAX_TRIES` times is refused.

    Args:
        on_picture: told how many there are, once for each.

    Returns:
        How many this call has settled.

    Raises:
        NotFound: the model has no champion with an ONNX file.
        BadSignature, DigestMismatch, WasCollected: the champion is not proven.
    """
    served = serve(context.registry, context.store, model, "onnx", context.settings.cache_folder)
    with context.registry.writing() as session:
        row = session.get(PredictionRun, (run_id, model))
        if row is None:
            session.add(
                PredictionRun(run_id=run_id, model=model, model_version_id=served.model_id, started_at=context.now())
            )
        else:
            row.model_version_id = served.model_id
    with context.registry.reading() as session:
        waiting = session.execute(
            select(IncomingPicture.key, IncomingPicture.etag)
            .where(IncomingPicture.state == "waiting", IncomingPicture.model == model)
            .order_by(IncomingPicture.seen_at, IncomingPicture.key)
        )
        names = waiting.all()
    for key, etag in names:
        on_picture(len(names))
        _predict_one(context, served, run_id, key, etag)
    return len(names)


def _predict_one(context: Context, served: Served, run_id: str, key: str, etag: str) -> None:
    with context.registry.writing() as session:  # before it is read: whoever dies of it leaves this
        row = session.get(IncomingPicture, (key, etag))
        if row is None or row.state != "waiting":
            return
        row.tries += 1
        tries = row.tries
    stored = context.store.stat(key)
    if stored is None or stored.etag != etag:  # replaced or removed before its turn: the next look forgets it
        return
    try:
        if tries > MAX_TRIES:
            raise Refused("hostile_file", f"Expected a picture that can be read. Received: {tries - 1} broken tries.")
        try:
            data = context.store.get(key)
        except NotFound:
            return
        segmented = segment(served, read_bytes(data))
    except Refused as err:
        values: dict[str, Any] = {"state": "refused", "problem": f"{err.code}: {err.what}"}
    else:
        values = {
            "state": "predicted",
            "mask_key": context.store.put(segmented.mask_file, "predictions"),
            "overlay_key": context.store.put(segmented.overlay_file(), "predictions"),
            **_found(segmented),
        }
    with context.registry.writing() as session:
        row = session.get_one(IncomingPicture, (key, etag))
        for name, value in values.items():
            setattr(row, name, value)
        row.run_id, row.model_version_id, row.settled_at = run_id, served.model_id, context.now()


def _found(segmented: Segmented) -> dict[str, Any]:
    found, grey, mask = segmented.findings, segmented.grey_hw, segmented.mask_hw
    return {
        "flags": list(found.flags),
        "left_px": found.left_px,
        "right_px": found.right_px,
        "left_mm2": found.left_mm2,
        "right_mm2": found.right_mm2,
        "likeness": found.likeness,
        "ms": segmented.ms,
        "intensity_mean": segmented.intensity_mean,
        "intensity_sd": segmented.intensity_sd,
        "height_px": grey.shape[0],
        "width_px": grey.shape[1],
        "spacing_y_mm": segmented.spacing_mm[1] if segmented.spacing_mm else None,
        "femur_area_pct": 100 * np.count_nonzero(mask) / mask.size,
        "femur_x_pct": found.x_pct,
        "femur_y_pct": found.y_pct,
    }
