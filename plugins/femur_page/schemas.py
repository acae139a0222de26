"""What the JSON API answers where no facts of the library say it already; rows of views as docs/registry.md says."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, Field

from femur_tasks.morning.incoming import FeatureDrift, IncomingNight
from femur_tasks.morning.verdict import ComparedCase, SliceDifference
from femur_tasks.parameters import Name
from femur_tasks.registry import gate

Item = TypeVar("Item")
Reason = Annotated[str, Field(min_length=3, max_length=500, pattern="^[^\\x00]*$")]
"""Why somebody acts; PostgreSQL takes no text with a null byte."""


class Page(BaseModel, Generic[Item]):
    """Some of what there is."""

    items: list[Item]
    total: int = Field(description="How many there are with these filters.")
    limit: int
    offset: int


class Failure(BaseModel):
    """Why there is no answer, and what to do."""

    detail: str
    todo: str = ""


class Version(BaseModel):
    """A row of the view model_registry."""

    model: str
    version: int
    family: str
    status: str
    test_dice: float | None
    test_worst_dice: float | None
    test_hd95_pct: float | None
    test_cases: int | None
    val_dice: float
    dataset: str
    dataset_digest: str
    verdict: str | None
    refused_for: str | None
    champion_since: datetime | None
    run_id: str
    created_at: datetime


class VersionInFull(Version):
    """One model version with its verdicts and its worst cases."""

    hyperparameters: dict[str, Any]
    size: int
    epochs: int
    artefact_bytes: int
    verdicts: list[dict[str, Any]]
    worst_cases: list[dict[str, Any]]


class Move(BaseModel):
    """A row of the view champion_history."""

    model: str
    version: int
    family: str
    since: datetime
    until: datetime | None
    kind: str
    previous_version: int | None
    actor: str
    reason: str
    verdict_id: int | None
    mean_difference: float | None
    difference_low: float | None
    difference_high: float | None


class RunRow(BaseModel):
    """One run."""

    run_id: str
    state: str
    trigger: str
    model: str
    dataset: str | None
    budget: str | None
    started_at: datetime
    finished_at: datetime | None
    detail: str
    has_report: bool


class Verdict(BaseModel):
    """What the gate said in a run, and what it stands on; cases are the challenger's worst first."""

    verdict_id: int
    run_id: str
    model: str
    outcome: str
    challenger: str
    champion: str | None
    headline: str
    sentence: str
    rules: list[gate.Reason]
    slices: list[SliceDifference]
    cases: list[ComparedCase]


class TrialRow(BaseModel):
    """A row of the view trial_board."""

    run_id: str
    search: str
    trial_id: str
    parent_id: str | None
    bracket: int
    rung: int
    from_epoch: int
    to_epoch: int
    state: str
    score: float | None
    epochs_done: int
    seconds: float | None
    worker: str
    failures: int
    detail: str
    hyperparameters: dict[str, Any] | str


class DatasetRow(BaseModel):
    """One dataset version."""

    dataset: str
    digest: str
    cases: int
    train_cases: int
    val_cases: int
    test_cases: int
    champion_of: list[str]
    created_at: datetime
    warnings: int


class NightInFull(BaseModel):
    """One night of predictions, and how far its newest pictures lie from the training data."""

    night: IncomingNight
    drift: list[FeatureDrift]
    drift_against: str


class RollbackAsked(BaseModel):
    """Put a former champion back."""

    model: Name
    reason: Reason
    version: int | None = Field(None, ge=1, description="Whom; the one before the present one where none is named.")


class RollbackStarted(BaseModel):
    """The run of the DAG rollback_champion that does it."""

    run_id: str
