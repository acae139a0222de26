"""The report of a run: what the page shows, and that every outcome leaves one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from femur_tasks.dataset.problems import Problem
from femur_tasks.errors import NotFound
from femur_tasks.evaluation.intervals import PAIRED_T, Interval
from femur_tasks.evaluation.overlays import png_bytes
from femur_tasks.phantom import make_case
from femur_tasks.registry.database import Registry, migrate
from femur_tasks.registry.gate import Reason, Verdict
from femur_tasks.registry.tables import (
    ComparisonManifest,
    Dataset,
    DatasetCase,
    DatasetVersion,
    Evaluation,
    EvaluationCase,
    Fit,
    FitEpoch,
    ModelVersion,
    Promotion,
    Run,
    Search,
    Trial,
    TrialEpoch,
    VerdictPicture,
    VerdictReason,
    VerdictRow,
)
from femur_tasks.reports.facts import (
    Candidate,
    Comparison,
    Curve,
    DatasetFacts,
    RunFacts,
    RunReport,
    Scores,
    TrialFacts,
    WorstCase,
)
from femur_tasks.reports.run import evidence, headline, render
from femur_tasks.settings import Settings
from femur_tasks.steps.context import Context
from femur_tasks.steps.report import write_report
from femur_tasks.storage import MemoryStore
from tests.conftest import ContextHere
from tests.pages import Page, assert_accessible, assert_self_contained, text_of

STARTED = datetime(2026, 3, 3, 2, 0, tzinfo=UTC)
DIGEST = "9f3c2a71b0de" + "0" * 52
STATES = ("promoted", "refused", "declined", "stale_champion", "nothing_new", "failed", "running")


def run_facts(state: str, **changed: Any) -> RunFacts:
    facts = {
        "run_id": "night-1",
        "trigger": "schedule",
        "model": "femur",
        "state": state,
        "detail": "every rule of the policy holds",
        "seed": 7,
        "started_at": STARTED,
        "finished_at": None if state == "running" else STARTED + timedelta(hours=4, minutes=31),
        "parameters": {"families": ["baseline", "unet"], "force": False, "size": None},
        "versions": {"keras": "3.15.1"},
    }
    return RunFacts(**{**facts, **changed})


def full_report(state: str = "promoted") -> RunReport:
    """A run that reached everything: two compared versions, a search, pictures and warnings."""
    interval = Interval(0.94, 0.96, 0.95, 3, "bootstrap-bca")
    difference = Interval(0.004, 0.016, 0.01, 3, PAIRED_T)
    reasons = (
        Reason("too_few_cases", True, 3.0, 3.0, "3 comparison cases, at least 3 needed"),
        Reason("worst_dice_floor", False, 0.31, 0.4, "worst case's Dice 0.3100, floor 0.4000"),
    )
    setting = {"learning_rate": 7.4e-4, "dropout": 0.2}
    scores = Scores(3, 0.95, interval, 0.31, 1.25)
    png = png_bytes(np.zeros((4, 4), np.uint8))
    return RunReport(
        run=run_facts(state),
        dataset=DatasetFacts(
            name="femur",
            digest=DIGEST,
            source="incoming/femur.zip",
            size=256,
            femur_class="1",
            train_cases=5,
            val_cases=2,
            test_cases=3,
            synthetic_cases=10,
            created_at=STARTED,
            warnings=(Problem("soft_mask", "SYN_0003", "two sizes", "one size", False),),
        ),
        comparison=Comparison(
            challenger="femur:9",
            champion="femur:6",
            verdict=Verdict("refuse", reasons, difference),
            policy={"name": "default-2", "level": 0.025},
            cases=3,
            excluded=2,
            differences={"SYN_0001": -0.002, "SYN_0002": 0.01, "SYN_0003": 0.022},
            promoted_by="nightly",
        ),
        candidates=(
            Candidate("femur:9", "challenger", "tuned", 0.961, 256, 52, setting, scores),
            Candidate("femur:8", "", "unet", 0.958, 256, 47, setting, None),
            Candidate("femur:6", "champion", "tuned", 0.954, 256, 41, setting, scores),
        ),
        curves=(Curve("unet", (1, 2), (0.5, 0.4), (0.7, 0.8)),),
        trials=(
            TrialFacts("0000", 1, 0, 0, 3, setting, 0.8123, "completed", 1, ""),
            TrialFacts("0001", 1, 0, 0, 3, setting, None, "failed", 3, "loss is nan"),
        ),
        trial_curves=(
            Curve("bracket 1", (1, 2, 3), (0.5, 0.4, 0.3), (0.7, 0.8, 0.81)),
            Curve("bracket 1", (1,), (0.6,), (0.5,)),
        ),
        worst_cases=(WorstCase("SYN_0001", 0.31, 12.5, png),),
    )


def chartless_report(state: str = "promoted") -> RunReport:
    """The full one without its charts, which take most of the time."""
    report = full_report(state)
    assert report.comparison
    return replace(report, curves=(), trial_curves=(), comparison=replace(report.comparison, differences={}))


@pytest.fixture(scope="module")
def full_page() -> str:
    return render(full_report())


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("whole", [True, False], ids=["everything", "run_only"])
def test_every_outcome_is_one_well_formed_page(state: str, whole: bool) -> None:
    report = chartless_report(state) if whole else RunReport(run_facts(state))
    page = render(report)
    parsed = Page(page)
    assert parsed.open == []
    assert [tag for tag, _ in parsed.tags].count("h1") == 1
    assert headline(report) in page
    assert "Research use, not for diagnosis." in page


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("promoted", "femur:9 replaces femur:6 as champion of femur"),
        ("refused", "femur:9 is refused, femur:6 stayed champion"),
        ("declined", "femur:9 is declined, femur:6 stayed champion"),
        ("stale_champion", "femur:9 is not promoted: the champion moved while it was compared"),
        ("nothing_new", "Nothing new to train for femur"),
        ("failed", "The retrain of femur failed after its verdict to refuse"),
        ("running", "The retrain of femur is still running"),
    ],
)
def test_headline_says_the_outcome(state: str, expected: str) -> None:
    assert headline(full_report(state)) == expected


def test_headline_of_a_run_without_a_champion_or_a_verdict() -> None:
    report = full_report("promoted")
    assert report.comparison
    first = replace(report.comparison, champion=None, differences={})
    assert headline(replace(report, comparison=first)) == "femur:9 is the first champion of femur"
    refused = replace(report, run=run_facts("refused"), comparison=first)
    assert headline(refused) == "femur:9 is refused, femur had no champion yet"
    assert headline(RunReport(run_facts("failed"))) == "The retrain of femur failed without a verdict"


def test_evidence_compares_means_with_their_intervals() -> None:
    assert evidence(full_report()) == (
        "Mean Dice 0.9500 [0.9400, 0.9600] against 0.9500 [0.9400, 0.9600] of femur:6 on 3 test cases, "
        "paired difference +0.0100 [+0.0040, +0.0160]."
    )
    assert evidence(RunReport(run_facts("failed"))) == ""


def test_every_rule_is_shown_with_value_threshold_and_result(full_page: str) -> None:
    text = text_of(full_page)
    assert "too_few_cases 3 comparison cases, at least 3 needed 3 3 ✓ pass" in text
    assert "worst_dice_floor worst case&#39;s Dice 0.3100, floor 0.4000 0.3100 0.4000 ✗ fail" in text
    assert "2 more were left out because a model had trained on them" in text


def test_facts_of_every_section_are_shown(full_page: str) -> None:
    text = text_of(full_page)
    for expected in (
        "3 March 2026, 02:00 to 06:31 UTC",
        "Promoted by nightly.",
        "femur:8 unet 0.9580 not scored",
        "SYN_0001 Dice 0.3100, HD95 12.50 %",
        "0000 1 0 1–3 0.00074 0.2 0.8123 1 completed",  # noqa: RUF001
        "0001 1 0 1–3 0.00074 0.2 – 3 failed: loss is nan",  # noqa: RUF001
        f"digest {DIGEST}",
        "soft_mask 1 SYN_0003: two sizes (one size)",
        "families baseline, unet",
        "keras 3.15.1",
        "The data is synthetic: 10 of 10 cases",
    ):
        assert expected in text


def test_real_data_is_not_called_synthetic() -> None:
    report = chartless_report()
    assert report.dataset
    page = render(replace(report, dataset=replace(report.dataset, synthetic_cases=0)))
    assert "synthetic" not in page


def test_a_refusal_for_want_of_a_policy_is_reported() -> None:
    report = chartless_report("refused")
    assert report.comparison
    blocked = Verdict("refuse", (Reason("no_policy", False, None, None, "there is no policy to judge by"),), None)
    text = text_of(render(replace(report, comparison=replace(report.comparison, policy={}, verdict=blocked))))
    assert "no_policy there is no policy to judge by – – ✗ fail" in text  # noqa: RUF001


def test_a_run_of_less_than_a_minute_names_its_time_once() -> None:
    text = text_of(render(RunReport(run_facts("nothing_new", finished_at=STARTED + timedelta(seconds=5)))))
    assert "3 March 2026, 02:00 UTC. Why" in text


def test_markup_in_facts_stays_text() -> None:
    evil = "<script>alert('x')</script>"
    report = full_report("failed")
    assert report.comparison
    assert report.dataset
    verdict = replace(report.comparison.verdict, reasons=(Reason(evil, False, None, None, evil),))
    page = render(
        replace(
            report,
            run=run_facts("failed", run_id=evil, detail=evil, trigger=evil, parameters={evil: evil}),
            dataset=replace(report.dataset, source=evil),
            comparison=replace(
                report.comparison, challenger=evil, verdict=verdict, differences={evil: 0.1, f"{evil}$2": -0.1}
            ),
            curves=(Curve(evil, (1, 2), (0.5, 0.4), (0.7, 0.8)),),
            worst_cases=(WorstCase(evil, 0.3, None, None),),
            pictures_note=evil,
        )
    )
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_page_needs_no_network_and_no_script(full_page: str) -> None:
    assert "data:image/png;base64," in full_page
    assert_self_contained(full_page)


def test_pictures_tables_and_ids_are_accessible(full_page: str) -> None:
    assert_accessible(full_page)


def test_charts_take_the_colours_of_the_page_and_keep_text_as_text(full_page: str) -> None:
    page = full_page
    assert page.count("<svg") == 3
    assert ">challenger better</text>" in page
    assert "SYN_0001</text>" in page
    assert "bracket 1 (2 configurations)</text>" in page
    assert "var(--series-0)" in page
    assert not re.search(r"#0000[01]\d", page)


def test_pictures_that_failed_are_named_with_the_reason() -> None:
    report = chartless_report()
    cases = tuple(replace(case, overlay_png=None) for case in report.worst_cases)
    page = render(replace(report, worst_cases=cases, pictures_note="Expected an object. Received: nothing."))
    assert "The pictures are left out: Expected an object. Received: nothing." in page
    assert "SYN_0001: Dice 0.3100, HD95 12.50 %" in page
    assert "<img" not in page


def test_report_of_the_longest_search_prints_to_six_pages(tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        reason = "Expected Chromium to print the report. Received: none on this machine."
        pytest.fail(reason) if "CI" in os.environ else pytest.skip(reason)
    report, picture = full_report(), png_bytes(make_case(1, 5, 256).image_hw)
    assert report.comparison
    assert report.comparison.verdict
    assert report.dataset
    verdict, cases = report.comparison.verdict, [f"SYN_{number:04d}" for number in range(48)]
    report = replace(
        report,
        trials=tuple(replace(report.trials[0], trial_id=f"{number:04d}") for number in range(254)),  # of R = 100
        trial_curves=report.trial_curves * 127,
        curves=report.curves * 3,
        worst_cases=tuple(WorstCase(case, 0.31, 12.5, picture) for case in cases[:10]),
        comparison=replace(
            report.comparison, cases=48, differences=dict.fromkeys(cases, 0.01),
            verdict=replace(verdict, reasons=verdict.reasons * 6),
        ),
        dataset=replace(report.dataset, warnings=report.dataset.warnings * 8),
    )  # fmt: skip
    (tmp_path / "report.html").write_text(render(report))
    printed = tmp_path / "report.pdf"
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
    subprocess.run(  # noqa: S603 - the browser of this machine
        [*command, f"--print-to-pdf={printed}", (tmp_path / "report.html").as_uri()],
        check=True, capture_output=True, timeout=200, env=os.environ | {"HOME": str(tmp_path)},
    )  # fmt: skip
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b(?!s)", printed.read_bytes())) <= 6


def test_same_facts_give_the_same_bytes(full_page: str) -> None:
    assert render(full_report()) == full_page


def test_rendering_loads_neither_keras_nor_the_registry_database() -> None:
    code = (
        "import sys, femur_tasks.reports.run; "
        "sys.exit(', '.join({'keras', 'tensorflow', 'sqlalchemy', 'matplotlib', 'airflow'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr


# what the step gathers


@pytest.fixture
def context(tmp_path: Path) -> Context:
    settings = Settings(home=tmp_path, _env_file=None)
    migrate(settings.database_url)
    return ContextHere(Registry(settings.database_url), MemoryStore(), settings, lambda: STARTED)


def add(context: Context, *rows: Any) -> None:
    with context.registry.writing() as session:
        for row in rows:
            session.add(row)
            session.flush()


def page_of(context: Context, run_id: str = "night-1") -> str:
    key = write_report(context, run_id)
    assert key.startswith("reports/")
    return text_of(context.store.get(key).decode())


def run_row(state: str, dataset: str | None = None, detail: str = "") -> Run:
    return Run(**{**vars(run_facts(state, detail=detail)), "dataset_digest": dataset, "report_key": None})


def dataset_rows(cases: int = 2) -> list[Any]:
    version = DatasetVersion(
        digest=DIGEST,
        name="femur",
        source="incoming/femur.zip",
        size=256,
        femur_class="1",
        cases=cases,
        train_cases=0,
        val_cases=0,
        test_cases=cases,
        manifest_key="manifests/none",
        problems=[],
        created_at=STARTED,
    )
    warning = Problem("soft_mask", "SYN_0000", "two sizes", "one size", False).as_dict()
    rows = [
        DatasetCase(
            digest=DIGEST,
            case_id=f"SYN_{index:04d}",
            patient=f"SYN_{index:04d}",
            split="test",
            image_sha256=f"image{index}",
            mask_sha256=f"mask{index}",
            height_px=512,
            width_px=512,
            problems=[] if index else [warning],
        )
        for index in range(cases)
    ]
    return [Dataset(name="femur", model="femur", budget="smoke", created_at=STARTED), version, *rows]


def model_row(version: int, family: str, run_id: str, val_dice: float) -> ModelVersion:
    return ModelVersion(
        id=version,
        name="femur",
        version=version,
        family=family,
        run_id=run_id,
        dataset_digest=DIGEST,
        hyperparameters={"dropout": 0.3},
        size=64,
        epochs=5,
        val_dice=val_dice,
        artefact_key=f"artefacts/{str(version) * 64}",
        artefact_sha256="a" * 64,
        artefact_bytes=1,
        created_at=STARTED,
    )


def evaluation_rows(model_id: int, dices: list[float]) -> list[Any]:
    evaluation = Evaluation(
        id=model_id,
        model_version_id=model_id,
        manifest_digest="m1",
        dataset_digest=DIGEST,
        split="test",
        metric="metric/1",
        cases=len(dices),
        mean_dice=sum(dices) / len(dices),
        worst_dice=min(dices),
        mean_hd95_pct=2.5,
        created_at=STARTED,
    )
    cases = [
        EvaluationCase(evaluation_id=model_id, case_id=f"SYN_{index:04d}", dice=dice, hd95_pct=2.5)
        for index, dice in enumerate(dices)
    ]
    return [evaluation, *cases]


def test_nothing_new_without_a_dataset_leaves_a_report(context: Context) -> None:
    add(context, run_row("nothing_new", detail="no dataset has a version that was not retrained yet"))
    text = page_of(context)
    assert "Nothing new to train for femur" in text
    assert "Why: no dataset has a version that was not retrained yet." in text
    assert "The run reached no verdict: the gate was not asked." in text


def test_a_run_that_failed_before_any_model_version_leaves_its_curve_and_dataset(context: Context) -> None:
    add(
        context,
        *dataset_rows(),
        run_row("failed", DIGEST, "a step before the verdict failed: see its log"),
        Fit(run_id="night-1", family="baseline"),
        FitEpoch(run_id="night-1", family="baseline", epoch=1, loss=0.5, val_dice=0.6125, seconds=1.0, at=STARTED),
    )
    text = page_of(context)
    assert "The retrain of femur failed without a verdict" in text
    assert "The run made no model version." in text
    assert "Training curves" in text
    assert "soft_mask 1 SYN_0000: two sizes (one size)" in text
    assert "The data is synthetic: 2 of 2 cases" in text


@pytest.fixture
def promoted(context: Context) -> Context:
    """A registry in which femur:2 of night-1 took over from femur:1 of night-0."""
    earlier = Run(**{**vars(run_facts("promoted", run_id="night-0")), "dataset_digest": DIGEST})
    verdict = VerdictRow(
        id=1,
        run_id="night-1",
        challenger_id=2,
        champion_id=1,
        manifest_digest="m1",
        policy={"name": "default-2", "level": 0.025},
        outcome="promote",
        mean_difference=0.05,
        difference_low=0.01,
        difference_high=0.09,
        created_at=STARTED,
    )
    add(
        context,
        *dataset_rows(),
        earlier,
        run_row("promoted", DIGEST),
        model_row(1, "unet", "night-0", 0.9),
        model_row(2, "unet", "night-1", 0.92),
        ComparisonManifest(
            digest="m1", dataset_digest=DIGEST, cases=[["SYN_0000", "i", "m"]] * 2, excluded=["x"], frozen_at=STARTED
        ),
        *evaluation_rows(1, [0.80, 0.90]),
        *evaluation_rows(2, [0.93, 0.87]),
        verdict,
        VerdictReason(
            verdict_id=1, position=0, code="gain", passed=True, value=0.01, threshold=0.0, sentence="it gained"
        ),
        Promotion(model="femur", kind="promote", from_id=1, to_id=2, verdict_id=1, actor="anna", reason="", at=STARTED),
    )
    return context


def test_challenger_that_is_not_proven_draws_no_picture(promoted: Context) -> None:
    assert "The pictures are left out: Expected a signature of femur:2" in page_of(promoted)


def test_a_promoted_run_shows_verdict_champion_and_overlays(promoted: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def drawn(context: Context, model_id: int, digest: str, case_ids: list[str]) -> dict[str, bytes]:
        with context.registry.reading() as session:
            label = session.get_one(ModelVersion, model_id).label
        asked.append((label, digest, case_ids))
        return {"SYN_0001": b"a picture" if label == "femur:2" else b"the champion's"}

    monkeypatch.setattr("femur_tasks.steps.worst_cases._overlays", drawn)
    page = promoted.store.get(write_report(promoted, "night-1")).decode()
    text = text_of(page)
    assert "femur:2 replaces femur:1 as champion of femur" in text
    assert "of femur:1 on 2 test cases, paired difference +0.0500 [+0.0100, +0.0900]." in text
    assert "95 % confidence intervals" in text
    assert "gain it gained 0.0100 0.0000 ✓ pass" in text
    assert "Promoted by anna." in text
    assert "challenger better" in text
    worst = ["SYN_0001", "SYN_0000"]
    assert asked == [(label, DIGEST, worst) for label in ("femur:2", "femur:1")]
    assert page.count("data:image/png;base64,YSBwaWN0dXJl") == 1
    with promoted.registry.reading() as session:
        (kept,) = session.scalars(select(VerdictPicture)).all()
    assert (kept.case_id, kept.position) == ("SYN_0001", 0)
    assert promoted.store.get(kept.challenger_key) == b"a picture"
    assert promoted.store.get(str(kept.champion_key)) == b"the champion's"
    write_report(promoted, "night-1")
    assert len(asked) == 2, "pictures are made once"


def test_a_report_whose_pictures_fail_is_written_without_them(
    promoted: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> dict[str, bytes]:
        raise NotFound("Expected an object named artefacts/1. Received: nothing.")

    monkeypatch.setattr("femur_tasks.steps.worst_cases._overlays", gone)
    text = page_of(promoted)
    assert "The pictures are left out: Expected an object named artefacts/1. Received: nothing." in text
    assert "SYN_0001: Dice 0.8700, HD95 2.50 % SYN_0000: Dice 0.9300" in text


def test_a_configuration_that_advanced_is_one_curve(context: Context) -> None:
    def trial(trial_id: str, parent: str | None, rung: int, epochs: tuple[int, int]) -> Trial:
        return Trial(
            run_id="night-1",
            search="tuned",
            trial_id=trial_id,
            parent_id=parent,
            hyperparameters={"dropout": 0.2},
            bracket=1,
            rung=rung,
            from_epoch=epochs[0],
            to_epoch=epochs[1],
            state="completed",
            told=True,
            score=0.5,
            best_epoch=epochs[1],
            failures=0,
            owner="w",
            token=1,
            lease_expires_at=STARTED,
            detail="",
            started_at=STARTED,
        )

    points = [("0000", 1), ("0001", 1), ("0002", 2), ("0002", 3)]
    add(
        context,
        *dataset_rows(),
        run_row("failed", DIGEST),
        Search(
            run_id="night-1",
            search="tuned",
            strategy="hyperband",
            space={},
            max_epochs=3,
            factor=3,
            samples=None,
            seed=0,
            fixed={},
            state="open",
            waits=False,
            strategy_state={},
        ),
        trial("0000", None, 0, (0, 1)),
        trial("0001", None, 0, (0, 1)),
        trial("0002", "0000", 1, (1, 3)),
        *(
            TrialEpoch(
                run_id="night-1",
                search="tuned",
                trial_id=trial_id,
                epoch=epoch,
                loss=0.5,
                val_dice=0.5,
                seconds=1.0,
                at=STARTED,
            )
            for trial_id, epoch in points
        ),
    )
    text = page_of(context)
    assert "bracket 1 (2 configurations)" in text
    assert "3 trials" in text


def test_writing_the_report_again_gives_the_same_key(context: Context) -> None:
    add(context, run_row("nothing_new"))
    assert write_report(context, "night-1") == write_report(context, "night-1")


def test_unknown_run_is_not_found(context: Context) -> None:
    with pytest.raises(NotFound, match="night-9"):
        write_report(context, "night-9")
