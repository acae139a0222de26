"""Pictures under incoming-images/: each predicted once, none lost by a kill, and what a night found kept as rows."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select

from femur_tasks.dataset.drift import MIN_CASES
from femur_tasks.registry.tables import (
    Champion,
    DatasetCase,
    IncomingPicture,
    PredictionDrift,
    PredictionRate,
    PredictionRun,
)
from femur_tasks.serving.champion import Served
from femur_tasks.serving.findings import FLAGS
from femur_tasks.steps import pictures
from femur_tasks.steps.context import Context
from femur_tasks.steps.objects import named_objects
from femur_tasks.steps.pictures import MAX_TRIES, look_for_pictures, predict_waiting
from femur_tasks.steps.prediction_rates import record_rates
from tests import registry_rows as rows
from tests.radiographs import grey_hw
from tests.served import SIZE, lone_femur, served

RUN = "night-1"


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(grey_hw(seed, SIZE, SIZE)).save(buffer, format="PNG")
    return buffer.getvalue()


def drop(context: Context, *names: str) -> None:
    for seed, name in enumerate(names):
        context.store.put_named(png(seed), f"incoming-images/{name}")


@pytest.fixture(autouse=True)
def champion(context: Context, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A champion of femur whose network is `served`'s; returns the models that were loaded."""
    with context.registry.writing() as session:
        digest = rows.dataset_version(session).digest
        model_id = rows.model_version(session, 1, digest).id
        session.add(Champion(model="femur", model_version_id=model_id, since=rows.NOON))
    loaded: list[Any] = []

    def serve(_registry: Any, _store: Any, model: str, *_: Any) -> Served:
        loaded.append(model)
        return served()

    monkeypatch.setattr(pictures, "serve", serve)
    return loaded


def ledger(context: Context) -> dict[str, IncomingPicture]:
    with context.registry.reading() as session:
        found = session.scalars(select(IncomingPicture)).all()
        session.expunge_all()
        return {row.key.removeprefix("incoming-images/"): row for row in found}


def test_look_counts_what_waits_by_model_and_whom_no_champion_serves(context: Context) -> None:
    drop(context, "a.png", "femur/sub/b.png", "hip/c.png")
    assert look_for_pictures(context) == {"waiting": {"femur": 2}, "without_champion": {"hip": 1}}
    assert {name: row.model for name, row in ledger(context).items()} == {
        "a.png": "femur", "femur/sub/b.png": "femur", "hip/c.png": "hip",
    }  # fmt: skip


def test_predicted_picture_has_its_findings_mask_and_overlay(context: Context) -> None:
    drop(context, "a.png")
    look_for_pictures(context)
    assert predict_waiting(context, RUN, "femur") == 1
    row = ledger(context)["a.png"]
    assert (row.state, row.run_id, row.model_version_id) == ("predicted", RUN, 1)
    assert (row.right_px, row.left_px, row.height_px) == (84, 60, SIZE)
    assert row.femur_area_pct == pytest.approx(100 * 144 / SIZE**2)
    assert row.intensity_mean == pytest.approx(grey_hw(0, SIZE, SIZE).mean())
    mask = np.asarray(Image.open(io.BytesIO(context.store.get(str(row.mask_key)))))
    assert np.count_nonzero(mask) == 144
    assert {row.mask_key, row.overlay_key} <= named_objects(context).keys(), "or garbage collection takes them"


def test_picture_is_predicted_once_by_name_and_content(context: Context) -> None:
    drop(context, "a.png")
    for expected in (1, 0):
        look_for_pictures(context)
        assert predict_waiting(context, RUN, "femur") == expected
    context.store.put_named(png(9), "incoming-images/a.png")
    assert look_for_pictures(context)["waiting"] == {"femur": 1}


def test_picture_that_went_away_before_its_turn_is_forgotten(context: Context) -> None:
    drop(context, "a.png", "b.png")
    look_for_pictures(context)
    context.store.delete("incoming-images/a.png")
    predict_waiting(context, RUN, "femur")
    look_for_pictures(context)
    assert {name: row.state for name, row in ledger(context).items()} == {"b.png": "predicted"}


def test_picture_that_was_replaced_before_its_turn_is_not_taken_for_the_old_one(context: Context) -> None:
    drop(context, "a.png")
    look_for_pictures(context)
    context.store.put_named(png(9), "incoming-images/a.png")
    predict_waiting(context, RUN, "femur")
    assert ledger(context)["a.png"].state == "waiting"
    assert look_for_pictures(context)["waiting"] == {"femur": 1}
    predict_waiting(context, RUN, "femur")
    row = ledger(context)["a.png"]
    assert (row.state, row.intensity_mean) == ("predicted", pytest.approx(grey_hw(9, SIZE, SIZE).mean()))


def test_killed_night_goes_on_with_the_rest(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    drop(context, "a.png", "b.png", "c.png")
    look_for_pictures(context)
    real, calls = pictures.segment, []

    def dies(*given: Any) -> Any:
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(pictures, "segment", dies)
    with pytest.raises(KeyboardInterrupt):
        predict_waiting(context, RUN, "femur")
    assert [row.state for row in ledger(context).values()] == ["predicted", "waiting", "waiting"]
    assert predict_waiting(context, RUN, "femur") == 2
    assert {row.state for row in ledger(context).values()} == {"predicted"}


def test_picture_that_ends_every_process_is_refused_at_last(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(_data: bytes) -> Any:
        raise KeyboardInterrupt

    drop(context, "a.png")
    look_for_pictures(context)
    monkeypatch.setattr(pictures, "read_bytes", dies)
    for _ in range(MAX_TRIES):
        with pytest.raises(KeyboardInterrupt):
            predict_waiting(context, RUN, "femur")
    predict_waiting(context, RUN, "femur")
    row = ledger(context)["a.png"]
    assert (row.state, row.problem.partition(":")[0]) == ("refused", "hostile_file")


def test_rates_of_a_night_are_rows(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "serve", lambda *_: served(lone_femur))
    drop(context, "a.png", "b.png", "c.png")
    context.store.put_named(b"no picture", "incoming-images/d.png")
    look_for_pictures(context)
    predict_waiting(context, RUN, "femur")
    for _ in range(2):  # a retry writes the same rows
        told = record_rates(context, RUN, "femur")
    assert (told["pictures"], told["refused"], told["flagged"]) == (4, 1, 3)
    with context.registry.reading() as session:
        rates = {row.flag: (row.pictures, row.share) for row in session.scalars(select(PredictionRate))}
        run = session.get_one(PredictionRun, (RUN, "femur"))
        assert (run.pictures, run.refused, run.flagged) == (4, 1, 3)
        assert run.finished_at is not None
    assert rates.keys() == {"refused", *FLAGS}
    assert (rates["refused"], rates["one_femur"], rates["unlike_training"]) == ((1, 0.25), (3, 0.75), (0, 0.0))


def test_drift_compares_the_newest_pictures_with_the_champions_cases(context: Context) -> None:
    with context.registry.writing() as session:
        for index in range(20):
            session.add(
                DatasetCase(
                    digest=rows.digest_of("v1"), case_id=f"c{index}", patient="p", split="train", image_sha256="0",
                    mask_sha256="0", height_px=SIZE, width_px=SIZE, intensity_mean=200.0 + index, intensity_sd=35.0,
                    femur_area_pct=14.0 + index / 100, problems=[],
                )
            )  # fmt: skip
    drop(context, *(f"{index:02d}.png" for index in range(20)))
    look_for_pictures(context)
    predict_waiting(context, RUN, "femur")
    told = record_rates(context, RUN, "femur")
    assert "intensity_mean" in told["drift"]
    assert "height_px" not in told["drift"]
    with context.registry.reading() as session:
        found = {row.feature: row for row in session.scalars(select(PredictionDrift))}
    assert (found["intensity_mean"].before_cases, found["intensity_mean"].after_cases) == (20, 20)
    assert found["intensity_mean"].level == "large"
    assert found["height_px"].level == "none"


def test_drift_of_few_pictures_has_no_level(context: Context) -> None:
    drop(context, *(f"{index}.png" for index in range(MIN_CASES - 1)))
    look_for_pictures(context)
    predict_waiting(context, RUN, "femur")
    assert record_rates(context, RUN, "femur")["drift"] == []
    with context.registry.reading() as session:
        assert {row.level for row in session.scalars(select(PredictionDrift))} == {None}
