"""Cards of model versions: figures worked out by hand, limits named, written once."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from femur_tasks.errors import DigestMismatch, FemurError, Unreachable
from femur_tasks.registry.tables import (
    ComparisonManifest,
    DatasetCase,
    EvaluationCase,
    Fit,
    FitEpoch,
    ModelCard,
    ModelVersion,
)
from femur_tasks.steps import close
from femur_tasks.steps.cards import write_cards
from femur_tasks.steps.context import Context
from tests import registry_rows as rows
from tests.pages import assert_accessible, assert_self_contained, text_of

HEIGHTS = {"A": 256, "B": 256, "C": 1024}
CASES: dict[str, dict[str, Any]] = {
    "A": {"dice": 0.9, "dice_left": 0.8, "dice_right": 1.0, "hd95_pct": 1.0},
    "B": {"dice": 0.6, "dice_left": 0.6, "dice_right": None, "hd95_pct": 3.0},
    "C": {"dice": 0.0, "dice_left": 0.0, "dice_right": 0.0, "hd95_pct": None, "flag": "prediction_empty"},
}


@pytest.fixture
def scored(context: Context) -> Context:
    """A run with one model version that was scored on three cases, and one that was not."""
    with context.registry.writing() as session:
        digest = rows.dataset_version(session).digest
        for case_id, height_px in HEIGHTS.items():
            session.add(
                DatasetCase(
                    digest=digest, case_id=case_id, patient=case_id, split="test", image_sha256=case_id,
                    height_px=height_px, mask_sha256=case_id, width_px=256, problems=[],
                )
            )  # fmt: skip
        model = rows.model_version(session, 1, digest, onnx_key=f"onnx/{'0' * 64}")
        session.add(
            ComparisonManifest(
                digest="m", dataset_digest=digest, cases_digest="c", excluded=[], frozen_at=rows.NOON,
                cases=[[case_id, case_id, case_id] for case_id in CASES],
            )
        )  # fmt: skip
        values = {"cases": 3, "mean_dice": 0.5, "worst_dice": 0.0, "mean_hd95_pct": 2.0}
        found = rows.evaluation(session, model, "m", **values)
        session.add_all(EvaluationCase(evaluation_id=found.id, case_id=name, **case) for name, case in CASES.items())
        session.add(Fit(run_id=model.run_id, family="unet", planned_epochs=2, checkpoint_key=None, best_key=None))
        session.flush()
        session.add_all(
            FitEpoch(run_id=model.run_id, family="unet", epoch=n, loss=1, val_dice=0.5, seconds=2.5, at=rows.NOON)
            for n in (1, 2)
        )
        session.add(
            ModelVersion(
                name="femur", version=2, family="baseline", run_id=model.run_id, dataset_digest=digest, size=64,
                hyperparameters={}, epochs=1, val_dice=0.1, artefact_key="a", artefact_sha256="0", artefact_bytes=1,
                created_at=rows.NOON,
            )
        )  # fmt: skip
    return context


def card_of(context: Context) -> tuple[str, dict[str, Any]]:
    with context.registry.reading() as session:
        card = session.scalars(select(ModelCard)).one()
        assert card.model_version_id == 1
        return context.store.get(card.html_key).decode(), json.loads(context.store.get(card.json_key))


def test_card_tells_figures_slices_worst_cases_and_cost(scored: Context) -> None:
    assert write_cards(scored, "femur-run-1") == ["femur:1"]
    _, facts = card_of(scored)
    assert (facts["cases"], facts["mean_dice"], facts["worst_dice"], facts["missed"]) == (3, 0.5, 0.0, 1)
    assert facts["hd95_p95_pct"] == pytest.approx(2.9)  # between 1 and 3, 95 % of the way
    assert facts["interval"]["low"] <= 0.5 <= facts["interval"]["high"]
    slices = {part["name"]: (part["cases"], pytest.approx(part["mean_dice"])) for part in facts["slices"]}
    assert slices == {
        "left": (3, 1.4 / 3),
        "right": (2, 0.5),
        "pictures of 1 to 512 px": (2, 0.75),
        "pictures of 513 to 1536 px": (1, 0.0),
    }
    assert [case["case_id"] for case in facts["worst"]] == ["C", "B", "A"]
    assert (facts["train_s"], facts["search_s"], facts["latency_ms"]) == (5.0, 0.0, 50.0)
    assert facts["files"]["ONNX"] == f"onnx/{'0' * 64}"
    assert facts["settings"]["dropout"] == 0.3
    assert any("1 of 3 test cases it finds no femur" in limit for limit in facts["limits"])
    assert any("3 test cases are too few" in limit for limit in facts["limits"])


def test_page_says_the_same_and_needs_nothing_beside_it(scored: Context) -> None:
    write_cards(scored, "femur-run-1")
    page, facts = card_of(scored)
    assert_self_contained(page)
    assert_accessible(page)
    told = text_of(page)
    for expected in ("femur:1", "0.5000", "pictures of 513 to 1536 px", "Research use", *facts["limits"][1:]):
        assert expected in told


def test_card_is_written_once(scored: Context) -> None:
    write_cards(scored, "femur-run-1")
    before = card_of(scored)
    assert write_cards(replace(scored), "femur-run-1") == []
    assert card_of(scored) == before


def test_store_that_is_away_while_a_run_is_closed_is_asked_again_later(
    scored: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(context: Context, run_id: str) -> None:
        raise Unreachable("Expected the object store to answer. Received: nothing.")

    monkeypatch.setattr(close, "write_cards", away)
    with pytest.raises(Unreachable):
        close.close_run(scored, "femur-run-1")


def test_sibling_that_cannot_be_scored_costs_nobody_the_card(scored: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(context: Context, run_id: str) -> None:
        raise DigestMismatch("Expected other bytes. Received: these.")

    monkeypatch.setattr(close, "score_others", damaged)
    with pytest.raises(FemurError, match="to reach a verdict"):  # there is none in this run
        close.close_run(scored, "femur-run-1")
    assert card_of(scored)[1]["label"] == "femur:1"
