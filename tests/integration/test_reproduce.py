"""A reproduction of a few experiments on made-up cases: rows with intervals, a page, and nothing trained twice."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import func, select

from femur_tasks import cli
from femur_tasks.dataset.manifest import Manifest
from femur_tasks.errors import FemurError, NotFound
from femur_tasks.evaluation.intervals import Interval
from femur_tasks.parameters import IngestParameters, ReproduceParameters
from femur_tasks.registry.tables import ExperimentFit, ExperimentRow, FitEpoch, Run, TrialEpoch
from femur_tasks.search import experiments
from femur_tasks.steps import experiment_table, reproduce
from femur_tasks.steps.context import Context
from femur_tasks.steps.folds import folds_of
from femur_tasks.steps.ingest import ingest
from tests.radiographs import write_reference

SPLITS = {
    "c" * n: "train" if n < 5 else "valid" if n < 7 else "test" for n in range(1, 27)
}  # pixels come from the name
FEW = ("baseline-dice", "unet-dice", "sweep")


@pytest.fixture
def reproduction(context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    chosen = tuple(experiments.BY_NAME[name] for name in FEW)
    for module in (reproduce, experiment_table):
        monkeypatch.setattr(module, "EXPERIMENTS", chosen)
    small = replace(experiments.REPRODUCE_BUDGETS["smoke"], epochs=2, seeds=1, sweep_samples=2)
    monkeypatch.setattr(reproduce, "REPRODUCE_BUDGETS", {"smoke": small})
    write_reference(tmp_path / "data", SPLITS)
    assert ingest(context, IngestParameters(path=str(tmp_path / "data"), size=32)).state == "ingested"
    return context


def test_rows_have_intervals_and_the_difference_to_the_row_above(reproduction: Context) -> None:
    context = reproduction
    opened = reproduce.open_reproduction(context, "again", "cli", ReproduceParameters())
    assert (opened["folds"], opened["experiments"]) == (1, list(FEW))
    for name in opened["experiments"]:
        told = reproduce.run_experiment(context, "again", name, "worker")
        assert told["fits"] == 1
    key = reproduce.conclude_reproduction(context, "again")["report"]
    with context.registry.reading() as session:
        rows = session.scalars(select(ExperimentRow).order_by(ExperimentRow.position)).all()
        fits = session.scalars(select(ExperimentFit)).all()
        state = session.get_one(Run, "again").state
        trial_epochs = session.scalar(select(func.count()).select_from(TrialEpoch))
    assert state == "reproduced"
    assert [row.experiment for row in rows] == list(FEW)
    for row in rows:
        assert row.test_low <= row.test_dice <= row.test_high
        assert (row.seeds, row.cases) == (1, 20)
    assert rows[0].difference is None
    for before, row in pairwise(rows):
        assert row.difference == pytest.approx(row.test_dice - before.test_dice)
        assert "no claim from fewer than 3 seeds" in row.sentence
    assert rows[2].title == "Learning-rate sweep, 2 of 28 drawn"
    assert (rows[0].epochs, rows[2].epochs) == (2, 2 + 2)
    assert trial_epochs == 2
    swept = next(fit for fit in fits if fit.experiment == "sweep")
    assert swept.hyperparameters["learning_rate"] != experiments.BY_NAME["sweep"].hyperparameters.learning_rate
    page = context.store.get(key).decode()
    assert all(experiments.BY_NAME[name].title in page for name in FEW)
    assert page.count("data:image/png") == 3
    assert "UTC to " in page or "Since" not in page, "the page says when it ended"
    assert not list(context.store.list("checkpoints/")), "what fits and trials leave behind is removed"


def test_what_was_trained_is_not_trained_again(reproduction: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    context = reproduction
    reproduce.open_reproduction(context, "again", "cli", ReproduceParameters())
    first = reproduce.run_experiment(context, "again", "baseline-dice", "worker")
    with context.registry.reading() as session:
        epochs = session.scalar(select(func.count()).select_from(FitEpoch))

    def never(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(reproduce, "trained", never)
    reproduce.open_reproduction(context, "again", "cli", ReproduceParameters())
    assert reproduce.run_experiment(context, "again", "baseline-dice", "worker") == first
    with context.registry.reading() as session:
        assert session.scalar(select(func.count()).select_from(FitEpoch)) == epochs


def test_reproduction_that_is_not_whole_fails_with_the_table_of_what_there_is(reproduction: Context) -> None:
    context = reproduction
    reproduce.open_reproduction(context, "again", "cli", ReproduceParameters())
    with pytest.raises(FemurError, match="Received: baseline-dice, unet-dice, sweep without"):
        reproduce.conclude_reproduction(context, "again")
    reproduce.run_experiment(context, "again", "baseline-dice", "worker")
    with pytest.raises(FemurError, match="Received: unet-dice, sweep without"):
        reproduce.conclude_reproduction(context, "again")
    with context.registry.reading() as session:
        run = session.get_one(Run, "again")
        assert (run.state, run.detail) == ("failed", "not all fits of unet-dice, sweep")
        assert [row.experiment for row in session.scalars(select(ExperimentRow))] == ["baseline-dice"]
        assert b"Baseline, Dice loss" in context.store.get(str(run.report_key))
    reproduce.open_reproduction(context, "again", "cli", ReproduceParameters())
    with context.registry.reading() as session:
        assert session.get_one(Run, "again").state == "running"


def test_experiment_that_fails_takes_no_row_away_from_the_others(
    reproduction: Context, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = reproduce.run_experiment

    def unlucky(context: Context, run_id: str, name: str, worker: str) -> object:
        if name == "unet-dice":
            raise FemurError("Expected luck. Received: none.")
        return run(context, run_id, name, worker)

    monkeypatch.setattr(reproduce, "run_experiment", unlucky)
    monkeypatch.setattr("femur_tasks.steps.context.open_context", lambda: reproduction)
    page = tmp_path / "table.html"
    monkeypatch.setattr(sys, "argv", ["femur", "reproduce", "--run-id", "again", "--report", str(page)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    told = capsys.readouterr()
    assert ended.value.code == 1
    assert "unet-dice failed: Expected luck. Received: none." in told.err
    assert "femur reproduce --run-id again" in told.err
    for text in (told.out, page.read_text()):
        assert "Learning-rate sweep" in text
        assert "U-Net, Dice loss" not in text
    with reproduction.registry.reading() as session:
        assert session.get_one(Run, "again").state == "failed"


def test_unknown_dataset_is_not_found(context: Context) -> None:
    with pytest.raises(NotFound):
        reproduce.open_reproduction(context, "other", "cli", ReproduceParameters(dataset="nowhere"))


@pytest.mark.parametrize(
    ("mean", "cases", "seeds", "said"),
    [
        pytest.param(0.01, (0.005, 0.02), None, "no claim from fewer than 3 seeds", id="too few seeds"),
        pytest.param(0.01, (0.005, 0.02), (0.001, 0.02), "Really better than X", id="better"),
        pytest.param(-0.01, (-0.02, -0.005), (-0.02, -0.001), "Really worse than X", id="worse"),
        pytest.param(0.01, (-0.005, 0.02), (0.001, 0.02), "No difference to X", id="not over the cases"),
        pytest.param(0.01, (0.005, 0.02), (-0.001, 0.02), "No difference to X", id="not over the seeds"),
        pytest.param(-0.01, (-0.02, -0.005), (-0.03, 0.0), "No difference to X", id="nor is it worse"),
    ],
)
def test_claim_needs_cases_and_three_seeds(
    mean: float, cases: tuple[float, float], seeds: tuple[float, float] | None, said: str
) -> None:
    gain, *seeded = (Interval(*ends, mean, 24, "any") for ends in (cases, seeds) if ends)
    assert said in experiment_table.sentence("X", gain, *seeded or [None])


def manifest_of(splits: dict[str, str], patients: dict[str, str] | None = None) -> Manifest:
    class Cases:
        cases = tuple(
            type("Case", (), {"case_id": case, "patient": (patients or {}).get(case, case), "split": split})
            for case, split in splits.items()
        )

    return Cases()  # type: ignore[return-value]  # what `folds_of` looks at


def test_folds_score_every_case_once_and_part_no_patient() -> None:
    splits = {f"C{n}": ("train", "train", "val", "test")[n % 4] for n in range(13)}
    patients = {"C0": "twin", "C7": "twin"}
    folds = folds_of(manifest_of(splits, patients), seed=4)
    assert len(folds) == 5
    assert sorted(case for fold in folds for case in fold.test) == sorted(splits)
    for fold in folds:
        assert sorted([*fold.train, *fold.val, *fold.test]) == sorted(splits)
        for part in (fold.train, fold.val, fold.test):
            assert ("C0" in part) == ("C7" in part)


def test_enough_test_cases_keep_the_versions_own_splits() -> None:
    splits = {f"S{n}": "test" for n in range(20)} | {"T": "train", "V": "val"}
    (fold,) = folds_of(manifest_of(splits), seed=0)
    assert (fold.train, fold.val, len(fold.test)) == (("T",), ("V",), 20)


def test_too_few_patients_for_folds() -> None:
    with pytest.raises(FemurError, match="4 patients"):
        folds_of(manifest_of({f"C{n}": "train" for n in range(4)}), seed=0)


def test_random_search_spends_what_hyperband_spends() -> None:
    full = experiments.REPRODUCE_BUDGETS["full"]
    spec = experiments.spec_of(experiments.BY_NAME["random"], full, seed=0)
    assert (spec.samples, spec.max_epochs) == (26, 100)  # Hyperband, R = 100: 2,672 epochs
    assert experiments.spec_of(experiments.BY_NAME["grid"], full, seed=0).samples is None
    with pytest.raises(FemurError, match="searches"):
        experiments.spec_of(experiments.BY_NAME["unet-dice"], full, seed=0)
