"""Publish: all converted cases of an ingest judged together, stored, and recorded in one transaction."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import femur_tasks
from femur_tasks.dataset import cases as converted
from femur_tasks.dataset import shards
from femur_tasks.dataset.acceptance import Accepted, accept
from femur_tasks.dataset.cases import CaseFacts
from femur_tasks.dataset.drift import DriftRow, drift, drift_problems
from femur_tasks.dataset.manifest import Manifest, ManifestCase, ShardRef
from femur_tasks.dataset.problems import SPLITS, Problem
from femur_tasks.dataset.work import Plan, Work
from femur_tasks.errors import FemurError
from femur_tasks.registry.tables import DatasetVersion
from femur_tasks.reports.ingest import render
from femur_tasks.reports.ingest_facts import CaseCard, IngestReport, Pair, State, choose_cards
from femur_tasks.reports.sheets import Sheet, card_sheets
from femur_tasks.steps import recording
from femur_tasks.steps.context import Context
from femur_tasks.steps.datasets import champions_version, features_of, newest_version, stored_features
from femur_tasks.steps.notify import tell

_SENDERS = 4
_PAIRS_SHOWN = 24
_BINARY = 255  # a mask of 0 and 255 has one class, whatever its number


@dataclass(frozen=True)
class Ingested:
    """What came of an ingest.

    Attributes:
        state: `ingested`, `known` (the very same version is there already), `refused`, or `dry run` where it would be
            ingested.
        digest: of the dataset version, None when refused.
        counts: cases by split.
        problems: errors, lifted errors and warnings, all of them.
        report: the page about it, HTML.
        report_key: where the page is in the store, None for a dry run.
    """

    ingest_id: str
    state: State
    dataset: str
    digest: str | None
    counts: Mapping[str, int]
    problems: tuple[Problem, ...]
    report: bytes
    report_key: str | None

    def as_dict(self) -> dict[str, Any]:
        """What `--json` prints: everything but the page itself."""
        problems = [problem.as_dict() for problem in self.problems]
        fields = {name: value for name, value in vars(self).items() if name != "report"}
        return {**fields, "counts": dict(self.counts), "problems": problems}

    def outcome(self) -> dict[str, Any]:
        """What Airflow carries."""
        return {name: getattr(self, name) for name in ("state", "dataset", "digest", "ingest_id", "report_key")}


def publish(
    context: Context,
    work: Work,
    dry_run: bool = False,
    on_stored: Callable[[int, int], None] = lambda _done, _total: None,
) -> Ingested:
    """Judge the converted cases of a plan together; store and record the version that they make.

    Retry-safe: what is stored is named by its content, and the rows come last, in one transaction.

    Args:
        dry_run: store and record nothing.
        on_stored: told how many cases' files are in the store, and how many there are.

    Raises:
        FemurError: the plan or a converted case is missing.
    """
    plan = work.plan()
    if plan is None:
        raise FemurError(f"Expected the plan of ingest {work.ingest_id}. Received: none.", "Run its first task again.")
    paths = work.converted(plan)
    facts, problems = _gathered(plan, paths)
    read = {case.case_id for case in facts}
    unread = {split for case_id, split in plan.cases.items() if case_id not in read}
    prints = {case.case_id: converted.load_fingerprint(paths[case.case_id]) for case in facts}
    while True:
        with context.registry.reading() as session:
            known = recording.known(session, plan.dataset)
            before = newest_version(session, plan.dataset)
        accepted = accept(plan.dataset, facts, problems, known, frozenset(plan.allow), prints, unread)
        manifest = manifest_of(plan, accepted)
        rows, against = _drift(context, plan, accepted, manifest.digest)
        accepted = replace(accepted, problems=(*accepted.problems, *drift_problems(rows, plan.dataset)))
        state = _state(context, accepted, manifest, dry_run)
        if state == "ingested":
            manifest = _stored(context, manifest, accepted, paths, before, on_stored)
        page, sheets = _page(context, plan, accepted, paths, state, manifest.digest, rows, against)
        result = Ingested(
            ingest_id=work.ingest_id,
            state=state,
            dataset=plan.dataset,
            digest=None if accepted.refused else manifest.digest,
            counts={} if accepted.refused else accepted.counts,
            problems=accepted.problems,
            report=page,
            report_key=None if dry_run else context.store.put(page, "reports"),
        )
        if dry_run:
            return result
        kept = sheets if state == "ingested" else []
        pictured = [(sheet, context.store.put(sheet.picture, "pictures")) for sheet in kept]
        manifest_key = context.store.put(manifest.to_json(), "manifests") if state == "ingested" else ""
        with context.registry.writing() as session:
            if state == "ingested":
                if recording.known(session, plan.dataset) != known:
                    continue  # another version came in between: its splits are carried too
                if session.get(DatasetVersion, manifest.digest) is None:  # else another ingest of the same was faster
                    recording.record_version(session, plan, manifest, manifest_key, accepted, context.now())
                    recording.record_drift(session, manifest.digest, against, rows)
                    recording.record_sheets(session, manifest.digest, pictured)
            recording.record_ingest(
                session, result.ingest_id, plan, state, result.digest, result.problems, str(result.report_key),
                context.now(),
            )  # fmt: skip
        tell(context)
        return result


def _gathered(plan: Plan, paths: Mapping[str, Path]) -> tuple[list[CaseFacts], list[Problem]]:
    facts: list[CaseFacts] = []
    problems = list(plan.problems)
    for case_id, path in paths.items():
        if not path.exists():
            raise FemurError(f"Expected case {case_id} to be converted. Received: none.", "Run the conversion again.")
        case, found = converted.load_facts(path)
        problems += found
        if case:
            facts.append(case)
    others = {label for case in facts for label in case.labels} - {*plan.femur, _BINARY}
    if others and plan.femur:
        there = f"classes {', '.join(map(str, sorted({*others, *plan.femur})))} without names"
        problems.append(Problem("unknown_class", plan.dataset, there, "one class, or the femur's by name or number"))
    return facts, problems


def manifest_of(plan: Plan, accepted: Accepted) -> Manifest:
    """The version's identity, before anything of it is stored: no keys and no shards yet."""
    described = tuple(
        ManifestCase(
            case_id=case.case_id,
            patient=case.patient,
            split=accepted.splits[case.case_id],
            image_sha256=case.image_sha256,
            mask_sha256=case.mask_sha256,
            height_px=case.height_px,
            width_px=case.width_px,
            spacing_mm=case.spacing_mm,
            raw_image_key="",
            raw_mask_key="",
        )
        for case in accepted.cases
    )
    return Manifest(plan.dataset, plan.size, plan.femur, described, {})


def _drift(context: Context, plan: Plan, accepted: Accepted, digest: str) -> tuple[list[DriftRow], str]:
    """Against the version that the champion was trained on; nothing before the first champion."""
    with context.registry.reading() as session:
        against = champions_version(session, str(plan.standing["model"]))
        if accepted.refused or against is None or against == digest:
            return [], ""
        return drift(stored_features(session, against), features_of(recording.case_rows(accepted))), against


def _named(context: Context, digest: str) -> str:
    with context.registry.reading() as session:
        version = session.get(DatasetVersion, digest)
        return f"{version.name}@{digest[:12]}" if version else ""


def _state(context: Context, accepted: Accepted, manifest: Manifest, dry_run: bool) -> State:
    if accepted.refused:
        return "refused"
    with context.registry.reading() as session:
        if session.get(DatasetVersion, manifest.digest):
            return "known"
    return "dry run" if dry_run else "ingested"


def _stored(
    context: Context,
    manifest: Manifest,
    accepted: Accepted,
    paths: Mapping[str, Path],
    before: DatasetVersion | None,
    on_stored: Callable[[int, int], None],
) -> Manifest:
    """Put raw files and shards into the store; the manifest that comes back names them."""
    facts = {case.case_id: case for case in accepted.cases}

    def put_raw(described: ManifestCase) -> ManifestCase:
        case = facts[described.case_id]
        return replace(
            described,
            raw_image_key=context.store.put(Path(case.raw_image), "raw"),
            raw_mask_key=context.store.put(Path(case.raw_mask), "raw"),
        )

    def put_shard(split: str, case_ids: Sequence[str]) -> ShardRef:
        pixels = [(case_id, converted.load_pixels(paths[case_id])) for case_id in case_ids]
        return ShardRef(context.store.put(shards.pack(pixels, split == "test"), "shards"), tuple(case_ids))

    earlier = Manifest.from_json(context.store.get(before.manifest_key)) if before else None
    with ThreadPoolExecutor(_SENDERS) as pool:
        described = []
        for case in pool.map(put_raw, manifest.cases):
            described.append(case)
            on_stored(len(described), len(manifest.cases))
    refs: dict[str, tuple[ShardRef, ...]] = {}
    for split in SPLITS:
        kept, new = shards.plan([case for case in described if case.split == split], manifest.size, earlier)
        refs[split] = (*kept, *(put_shard(split, case_ids) for case_ids in new))
    return replace(manifest, cases=tuple(described), shards=refs)


def _page(
    context: Context,
    plan: Plan,
    accepted: Accepted,
    paths: Mapping[str, Path],
    state: State,
    digest: str,
    rows: Sequence[DriftRow],
    against: str,
) -> tuple[bytes, list[Sheet]]:
    """The report, and the contact sheets in it."""
    patients = {case.case_id: case.patient for case in accepted.cases}

    def card(case_id: str) -> CaseCard:
        pixels = converted.load_pixels(paths[case_id])
        found = tuple(problem for problem in accepted.problems if problem.case_id == case_id)
        split = accepted.splits[case_id]
        return CaseCard(case_id, split, patients[case_id], pixels.small_image_hw, pixels.small_mask_hw, found)

    report = IngestReport(
        dataset=plan.dataset,
        source=plan.source,
        state=state,
        size=plan.size,
        started_at=plan.started_at,
        finished_at=context.now(),
        digest=None if accepted.refused else digest,
        layout=plan.layout,
        classes=plan.classes,
        femur_class=plan.femur_class,
        counts={} if accepted.refused else accepted.counts,
        cases_found=len(plan.cases),
        allowed=plan.allow,
        problems=accepted.problems,
        features=features_of(recording.case_rows(accepted)),
        drift=tuple(rows),
        drift_against=_named(context, against),
        cards=tuple(card(case_id) for case_id in choose_cards(accepted.splits, accepted.problems)),
        pairs=tuple(Pair(card(first), card(second), score) for first, second, score in accepted.pairs[:_PAIRS_SHOWN]),
        versions={
            "femur_tasks": femur_tasks.__version__,
            "python": platform.python_version(),
            **{name: version_of(name) for name in ("nibabel", "pydicom", "pillow", "numpy")},
        },
    )
    sheets = list(card_sheets(report.cards))
    return render(report, sheets).encode(), sheets
