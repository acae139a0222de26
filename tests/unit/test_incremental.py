"""A version that grows: only what is new is sent to the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from femur_tasks.dataset import shards
from femur_tasks.parameters import IngestParameters
from femur_tasks.steps.context import Context
from femur_tasks.steps.ingest import ingest
from tests.radiographs import REFERENCE, write_reference


def keys(context: Context) -> set[str]:
    return {found.key for found in context.store.list("") if not found.key.startswith("reports/")}


@pytest.fixture
def grown(context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[set[str], set[str]]:
    """What is in the store before and after a version of five cases, cut into shards of two, has grown by one."""
    monkeypatch.setattr(shards, "CASES_A_SHARD", 2)
    ingest(context, IngestParameters(path=str(write_reference(tmp_path / "one")), size=32))
    before = keys(context)
    source = write_reference(tmp_path / "two", {**REFERENCE, "F": "train"})
    assert ingest(context, IngestParameters(path=str(source), size=32)).counts["train"] == 4
    return before, keys(context)


@pytest.mark.parametrize(
    ("kind", "new"),
    [("raw/", 1), ("shards/", 1), ("manifests/", 1)],
    ids=["its picture, its mask being A's", "the shard that was not full", "a manifest"],
)
def test_growing_version_adds(grown: tuple[set[str], set[str]], kind: str, new: int) -> None:
    before, after = grown
    assert len([key for key in after - before if key.startswith(kind)]) == new
    assert before <= after
