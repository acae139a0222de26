"""A policy file that holds no usable rules: the run ends with a refusing verdict that says so, not with a crash."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from femur_tasks.registry.tables import Champion, Run, VerdictReason, VerdictRow
from femur_tasks.settings import CHECKOUT
from femur_tasks.steps import champion
from femur_tasks.steps.context import Context
from tests import registry_rows as rows

SHIPPED = (CHECKOUT / "femur_tasks/registry/policy.yaml").read_text()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        pytest.param("", "no_policy", id="empty file"),
        pytest.param("# all rules are gone\n", "no_policy", id="comments alone"),
        pytest.param(None, "no_policy", id="no file"),
        pytest.param("name: [\n", "no_policy", id="no YAML"),
        pytest.param("\udcff", "no_policy", id="no text"),
        pytest.param(SHIPPED.replace("worst_dice_floor: 0.40", ""), "no_rule", id="a rule is missing"),
        pytest.param(SHIPPED.replace("0.80", ".nan"), "no_rule", id="a threshold is NaN"),
        pytest.param(SHIPPED.replace("min_gain: 0.0", "min_gain:"), "no_rule", id="a threshold is empty"),
    ],
)
def test_run_under_a_broken_policy_is_refused_with_the_reason_in_a_row(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, code: str
) -> None:
    with context.registry.writing() as session:
        rows.model_version(session, 1, rows.dataset_version(session).digest)
    file = tmp_path / "policy.yaml"
    if text is not None:
        file.write_text(text, errors="surrogateescape")
    context = replace(context, settings=context.settings.model_copy(update={"policy": file}))
    monkeypatch.setattr(champion, "evaluate", _scores_nothing)
    answer = champion.decide(context, "femur-run-1", "test")
    assert answer["state"] == "refused"
    with context.registry.reading() as session:
        reasons = session.scalars(select(VerdictReason.code).where(VerdictReason.verdict_id == answer["verdict_id"]))
        assert code in reasons.all()
        policy = session.get_one(VerdictRow, answer["verdict_id"]).policy
        assert policy == ({} if code == "no_policy" else policy | {"name": "default-2"})
        assert all(isinstance(bound, str) or bound is None or math.isfinite(bound) for bound in policy.values()), (
            "NaN is no JSON"
        )
        assert session.get_one(Run, "femur-run-1").state == "refused"
        assert session.scalars(select(Champion)).all() == []


def _scores_nothing(context: Context, run_id: str) -> dict[str, Any]:
    return {}
