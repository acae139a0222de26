"""Ingest: a source becomes a dataset version, or a list of everything that is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from femur_tasks.dataset import shards
from femur_tasks.dataset.layouts import CaseFiles, find_cases
from femur_tasks.dataset.manifest import Manifest, ManifestCase
from femur_tasks.dataset.problems import SPLITS, Problem, errors
from femur_tasks.dataset.sources import opened
from femur_tasks.dataset.splits import assign_splits
from femur_tasks.dataset.validation import ConvertedCase, read_case
from femur_tasks.errors import FemurError, NotFound, Rejected
from femur_tasks.parameters import IngestParameters
from femur_tasks.registry.tables import Dataset, DatasetCase, DatasetVersion
from femur_tasks.steps.context import Context

_FEW_TEST_CASES = 20
_SPLIT_SEED = 0

Progress = Callable[[int, int], None]
"""Called with cases done and cases in all."""


@dataclass(frozen=True)
class Ingested:
    """What came of an ingest.

    Attributes:
        state: `ingested`, `known` (the very same version is there already) or `refused`.
        digest: of the dataset version, None when refused.
        counts: cases by split.
        problems: errors and warnings, all of them.
    """

    state: str
    dataset: str
    digest: str | None
    counts: Mapping[str, int]
    problems: tuple[Problem, ...]

    def as_dict(self) -> dict[str, Any]:
        """A small dict: what Airflow carries and `--json` prints."""
        problems = [problem.as_dict() for problem in self.problems]
        return {**vars(self), "counts": dict(self.counts), "problems": problems}


def ingest(context: Context, parameters: IngestParameters, progress: Progress = lambda done, total: None) -> Ingested:
    """Ingest one source; with any error nothing changes.

    Args:
        context: where to store and record.
        parameters: source, dataset and how to read it; `path` must be given.
        progress: told after each case.

    Raises:
        NotFound: the source is not there.
        Unreachable: the store or the registry does not answer.
    """
    if not parameters.path:
        raise FemurError("Expected the path of a folder or an archive. Received: none.")
    try:
        with _located(context, parameters.path) as source, opened(source) as folder:
            return _ingest_folder(context, _resolved(context, parameters), folder, progress)
    except Rejected as err:
        problem = Problem("broken_archive", PurePosixPath(parameters.path).name, err.what, "an archive of ours")
        return Ingested("refused", parameters.dataset, None, {}, (problem,))


@dataclass(frozen=True)
class _Order:
    """The parameters with nothing left empty."""

    path: str
    dataset: str
    femur_label: int
    size: int
    model: str
    budget: str


def _resolved(context: Context, asked: IngestParameters) -> _Order:
    """What was left empty is as the dataset's standing order and newest version have it."""
    with context.registry.reading() as session:
        dataset = session.get(Dataset, asked.dataset)
        newest = session.scalars(
            select(DatasetVersion)
            .where(DatasetVersion.name == asked.dataset)
            .order_by(DatasetVersion.created_at.desc())
        ).first()
        return _Order(
            path=str(asked.path),
            dataset=asked.dataset,
            femur_label=asked.femur_label or (newest.femur_label if newest else 1),
            size=asked.size or (newest.size if newest else 256),
            model=asked.model or (dataset.model if dataset else "femur"),
            budget=asked.budget or (dataset.budget if dataset else "nightly"),
        )


def _ingest_folder(context: Context, parameters: _Order, folder: Path, progress: Progress) -> Ingested:
    files, layout_problems = find_cases(folder)
    cases, case_problems = _read_all(files, parameters, progress)
    while True:
        with context.registry.reading() as session:
            fixed = _known_splits(session, parameters.dataset)
        splits = assign_splits({case.case_id: case.split for case in files}, fixed, _SPLIT_SEED)
        problems = layout_problems + case_problems + _of_splits(files, splits, parameters.dataset)
        if errors(problems):
            return Ingested("refused", parameters.dataset, None, {}, tuple(problems))
        counts = {split: sum(chosen == split for chosen in splits.values()) for split in SPLITS}
        manifest = _manifest(parameters, cases, splits)
        with context.registry.reading() as session:
            known = session.get(DatasetVersion, manifest.digest) is not None
        if known:
            return Ingested("known", parameters.dataset, manifest.digest, counts, tuple(problems))
        manifest = _stored(context, manifest, cases)
        manifest_key = context.store.put(manifest.to_json(), "manifests")
        with context.registry.writing() as session:
            if _known_splits(session, parameters.dataset) != fixed:
                continue  # another version of the dataset came in between: its splits are carried too
            _record(context, session, parameters, manifest, manifest_key, counts, problems)
        return Ingested("ingested", parameters.dataset, manifest.digest, counts, tuple(problems))


@contextmanager
def _located(context: Context, path: str) -> Iterator[Path]:
    """The source as a local path; an object or a folder `s3://bucket/key` is fetched to a temporary folder."""
    if not path.startswith("s3://"):
        yield Path(path).expanduser()
        return
    bucket, _, key = path.removeprefix("s3://").partition("/")
    if bucket != context.settings.s3_bucket:
        raise NotFound(f"Expected an object of bucket {context.settings.s3_bucket}. Received: {path}.")
    with TemporaryDirectory(prefix="femur-incoming-") as temporary:
        folder = Path(temporary).resolve()
        if key and not key.endswith("/") and context.store.stat(key):
            archive = folder / PurePosixPath(key).name
            context.store.download(key, archive)
            yield archive
            return
        prefix = key and f"{key.rstrip('/')}/"
        found = [stored.key for stored in context.store.list(prefix)]
        if not found:
            raise NotFound(f"Expected objects under {path}. Received: none.")
        for name in found:
            target = (folder / name.removeprefix(prefix).lstrip("/")).resolve()
            if not target.is_relative_to(folder):
                raise Rejected(f"Expected objects below {path}. Received: {name!r}.")
            target.parent.mkdir(parents=True, exist_ok=True)
            context.store.download(name, target)
        yield folder


def _read_all(
    files: Sequence[CaseFiles], parameters: _Order, progress: Progress
) -> tuple[list[ConvertedCase], list[Problem]]:
    cases: list[ConvertedCase] = []
    problems: list[Problem] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda case: read_case(case, parameters.size, parameters.femur_label), files)
        for done, result in enumerate(results, start=1):
            if isinstance(result, ConvertedCase):
                cases.append(result)
            else:
                problems.extend(result)
            progress(done, len(files))
    return cases, problems


def _known_splits(session: Session, dataset: str) -> dict[str, str]:
    """The split of each patient in the earliest version of this dataset that has the patient."""
    rows = session.execute(
        select(DatasetCase.patient, DatasetCase.split)
        .join(DatasetVersion, DatasetVersion.digest == DatasetCase.digest)
        .where(DatasetVersion.name == dataset)
        .order_by(DatasetVersion.created_at.desc())
    )
    return {row.patient: row.split for row in rows}


def _of_splits(files: Sequence[CaseFiles], splits: Mapping[str, str], dataset: str) -> list[Problem]:
    problems = []
    for case in files:
        if case.split and splits[case.case_id] != case.split:
            found = f"in {case.split}, but {splits[case.case_id]} in an earlier version"
            problems.append(Problem("split_carried", case.case_id, found, "the split of first sight is kept", False))
    for split in SPLITS:
        count = sum(chosen == split for chosen in splits.values())
        if files and not count:
            problems.append(Problem("empty_split", dataset, f"no case in {split}", "at least one case a split"))
        elif split == "test" and 0 < count < _FEW_TEST_CASES:
            expected = f"{_FEW_TEST_CASES} or more, or the gate will refuse"
            problems.append(Problem("few_test_cases", dataset, f"{count} test cases", expected, False))
    return problems


def _manifest(parameters: _Order, cases: Sequence[ConvertedCase], splits: Mapping[str, str]) -> Manifest:
    described = tuple(
        ManifestCase(
            case_id=case.case_id,
            patient=case.case_id,
            split=splits[case.case_id],
            image_sha256=case.image_sha256,
            mask_sha256=case.mask_sha256,
            height_px=case.height_px,
            width_px=case.width_px,
            spacing_mm=case.spacing_mm,
            raw_image_key="",
            raw_mask_key="",
        )
        for case in cases
    )
    return Manifest(parameters.dataset, parameters.size, parameters.femur_label, described, {})


def _stored(context: Context, manifest: Manifest, cases: Sequence[ConvertedCase]) -> Manifest:
    """Put raw files and shards into the store; the manifest that comes back names them."""
    by_id = {case.case_id: case for case in cases}

    def put_raw(described: ManifestCase) -> ManifestCase:
        files = by_id[described.case_id].files
        keys = {
            "raw_image_key": context.store.put(files.image, "raw"),
            "raw_mask_key": context.store.put(files.mask, "raw"),
        }
        return ManifestCase(**{**vars(described), **keys})

    with ThreadPoolExecutor(4) as pool:
        described = tuple(pool.map(put_raw, manifest.cases))
    keys: dict[str, tuple[str, ...]] = {}
    for split in SPLITS:
        chosen = [by_id[case.case_id] for case in described if case.split == split]
        parts = [chosen[i : i + shards.CASES_A_SHARD] for i in range(0, len(chosen), shards.CASES_A_SHARD)]
        keys[split] = tuple(
            context.store.put(shards.pack(part, with_full_masks=split == "test"), "shards") for part in parts
        )
    return Manifest(manifest.dataset, manifest.size, manifest.femur_label, described, keys)


def _record(
    context: Context,
    session: Session,
    parameters: _Order,
    manifest: Manifest,
    manifest_key: str,
    counts: Mapping[str, int],
    problems: Sequence[Problem],
) -> None:
    now = context.now()
    dataset = session.get(Dataset, manifest.dataset)
    if dataset is None:
        dataset = Dataset(name=manifest.dataset, created_at=now)
        session.add(dataset)
    dataset.model, dataset.budget = parameters.model, parameters.budget
    if session.get(DatasetVersion, manifest.digest):  # another ingest of the same was faster
        return
    session.add(
        DatasetVersion(
            digest=manifest.digest,
            name=manifest.dataset,
            source=parameters.path,
            size=manifest.size,
            femur_label=manifest.femur_label,
            cases=len(manifest.cases),
            train_cases=counts["train"],
            val_cases=counts["val"],
            test_cases=counts["test"],
            manifest_key=manifest_key,
            problems=[problem.as_dict() for problem in problems if problem.case_id == manifest.dataset],
            created_at=now,
        )
    )
    session.flush()
    for case in manifest.cases:
        spacing = case.spacing_mm or (None, None)
        session.add(
            DatasetCase(
                digest=manifest.digest,
                case_id=case.case_id,
                patient=case.patient,
                split=case.split,
                image_sha256=case.image_sha256,
                mask_sha256=case.mask_sha256,
                height_px=case.height_px,
                width_px=case.width_px,
                spacing_x_mm=spacing[0],
                spacing_y_mm=spacing[1],
                problems=[problem.as_dict() for problem in problems if problem.case_id == case.case_id],
            )
        )
