"""Ingest: a source becomes a dataset version, or everything that is wrong with it and nothing else."""

from __future__ import annotations

import base64
import gzip
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from femur_tasks.dataset import shards
from femur_tasks.dataset.layouts import find_cases
from femur_tasks.dataset.manifest import Manifest
from femur_tasks.errors import FemurError, NotFound
from femur_tasks.parameters import IngestParameters
from femur_tasks.registry.tables import Base, Dataset, DatasetCase, DatasetVersion, IncomingObject, Ingest
from femur_tasks.steps import datasets
from femur_tasks.steps import publish as steps_publish
from femur_tasks.steps.context import Context
from femur_tasks.steps.incoming import ingest_incoming, look_for_incoming
from femur_tasks.steps.ingest import Progress, ingest
from femur_tasks.steps.objects import named_objects
from femur_tasks.steps.publish import Ingested
from femur_tasks.steps.withdrawals import withdraw
from femur_tasks.storage import MemoryStore
from tests.radiographs import FLAT, REFERENCE, labels_hw, nifti, packed, write_case, write_flat, write_reference


def run(context: Context, path: Path | str, **parameters: Any) -> Ingested:
    return ingest(context, IngestParameters(path=str(path), size=32, **parameters))


def everything(context: Context) -> tuple[dict[str, list[Any]], list[str]]:
    """All rows of all tables, and all keys of the store, but for the record that every ingest leaves of itself."""
    with context.registry.reading() as session:
        rows = {
            table.name: [tuple(row) for row in session.execute(select(table))]
            for table in Base.metadata.sorted_tables
            if table.name != "ingest"
        }
    return rows, [found.key for found in context.store.list("") if not found.key.startswith("reports/")]


def ingests(context: Context) -> list[Ingest]:
    with context.registry.reading() as session:
        return list(session.scalars(select(Ingest).order_by(Ingest.finished_at)))


def memory(context: Context) -> MemoryStore:
    assert isinstance(context.store, MemoryStore)
    return context.store


def codes(result: Ingested, errors_only: bool = True) -> list[tuple[str, str]]:
    return [(found.case_id, found.code) for found in result.problems if found.is_error or not errors_only]


def splits_of(context: Context, digest: str | None) -> dict[str, str]:
    with context.registry.reading() as session:
        rows = session.scalars(select(DatasetCase).where(DatasetCase.digest == digest))
        return {row.case_id: row.split for row in rows}


def manifest_of(context: Context, digest: str | None) -> Manifest:
    with context.registry.reading() as session:
        return Manifest.from_json(context.store.get(session.get_one(DatasetVersion, digest).manifest_key))


# ---- what is recorded


def test_version_is_recorded_with_its_cases_and_counts(context: Context, tmp_path: Path) -> None:
    source = write_reference(tmp_path / "data")
    result = run(context, source, dataset="hip", model="hip-model", budget="smoke")
    assert (result.state, result.dataset, dict(result.counts)) == ("ingested", "hip", {"train": 3, "val": 1, "test": 1})
    with context.registry.reading() as session:
        version = session.get_one(DatasetVersion, result.digest)
        assert (version.name, version.source, version.size, version.femur_class) == (
            "hip",
            str(source),
            32,
            "FEMUR (1)",
        )
        assert (version.cases, version.train_cases, version.val_cases, version.test_cases) == (5, 3, 1, 1)
        dataset = session.get_one(Dataset, "hip")
        assert (dataset.model, dataset.budget) == ("hip-model", "smoke")
        case = session.get_one(DatasetCase, (result.digest, "E"))
        assert (case.patient, case.split, case.height_px, case.width_px) == ("E", "test", 40, 48)
        assert (case.spacing_x_mm, case.spacing_y_mm) == (None, None)
    assert splits_of(context, result.digest) == {"A": "train", "B": "train", "C": "train", "D": "val", "E": "test"}


def test_manifest_names_raw_files_and_shards(context: Context, tmp_path: Path) -> None:
    source = write_reference(tmp_path / "data")
    result = run(context, source)
    manifest = manifest_of(context, result.digest)
    assert manifest.digest == result.digest
    for case in manifest.cases:
        split = REFERENCE[case.case_id]
        raw = (source / split / "imgs" / f"{case.case_id}.nii.gz").read_bytes()
        assert context.store.get(case.raw_image_key) == raw
        raw = (source / split / "targets" / f"{case.case_id}.nii.gz").read_bytes()
        assert context.store.get(case.raw_mask_key) == raw
    packs = {
        split: [shards.unpack(context.store.get(key)) for key in manifest.shard_keys(split)]
        for split in manifest.shards
    }
    assert {split: [pack.case_ids for pack in found] for split, found in packs.items()} == {
        "train": [("A", "B", "C")],
        "val": [("D",)],
        "test": [("E",)],
    }
    assert packs["train"][0].full_masks == ()
    np.testing.assert_array_equal(packs["test"][0].full_masks[0], labels_hw(ord("E")) == 1)


def test_split_of_many_cases_is_cut_into_shards(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "CASES_A_SHARD", 2)
    found = manifest_of(context, run(context, write_reference(tmp_path)).digest).shards["train"]
    assert [shard.case_ids for shard in found] == [("A", "B"), ("C",)]
    assert [shards.unpack(context.store.get(shard.key)).case_ids for shard in found] == [("A", "B"), ("C",)]


def test_spacing_is_recorded_where_the_header_has_it(context: Context, tmp_path: Path) -> None:
    source = write_reference(tmp_path)
    image = source / "train" / "imgs" / "A.nii.gz"
    pixels = np.arange(40 * 48, dtype=np.uint16).reshape(48, 40) % 250
    image.write_bytes(gzip.compress(nifti(pixels.astype(np.uint8), "mm", (0.25, 0.5))))
    result = run(context, source)
    with context.registry.reading() as session:
        case = session.get_one(DatasetCase, (result.digest, "A"))
        assert (case.spacing_x_mm, case.spacing_y_mm) == (0.25, 0.5)
    assert manifest_of(context, result.digest).cases[0].spacing_mm == (0.25, 0.5)


def test_progress_counts_every_case(context: Context, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    ingest(
        context,
        IngestParameters(path=str(write_reference(tmp_path)), size=32),
        Progress(on_cases=lambda done, total: seen.append((done, total))),
    )
    assert seen == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


def test_source_is_read_once_where_one_process_ingests_it(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Annotations of a million points take seconds to read."""
    read = []

    def counted(*asked: Any) -> Any:
        read.append(asked)
        return find_cases(*asked)

    monkeypatch.setattr("femur_tasks.steps.ingest.find_cases", counted)
    assert run(context, write_reference(tmp_path)).state == "ingested"
    assert len(read) == 1


def test_real_cases_keep_their_splits(context: Context, shared_data: Path) -> None:
    result = run(context, shared_data / "real_dev11")
    assert (result.state, dict(result.counts)) == ("ingested", {"train": 7, "val": 2, "test": 2})
    assert codes(result, errors_only=False) == [("femur", "few_test_cases")]


def test_multiclass_mask_gives_the_class_that_is_asked_for(context: Context, tmp_path: Path) -> None:
    source = write_reference(tmp_path)
    digests = {label: run(context, source, femur_class=label).digest for label in ("1", "iliak")}
    assert digests["1"] != digests["iliak"]
    shard = shards.unpack(context.store.get(manifest_of(context, digests["iliak"]).shard_keys("test")[0]))
    np.testing.assert_array_equal(shard.full_masks[0], labels_hw(ord("E")) == 2)


# ---- the same cases are the same version


@pytest.fixture
def digest(context: Context, tmp_path: Path) -> str | None:
    return run(context, write_reference(tmp_path / "plain")).digest


@pytest.mark.parametrize("top", ["", "export v2"], ids=["no top folder", "top folder"])
@pytest.mark.parametrize("suffix", ["", ".zip", ".tar.gz"], ids=["folder", "zip", "tar.gz"])
@pytest.mark.parametrize("backwards", [False, True], ids=["in order", "backwards"])
def test_packing_does_not_change_the_version(
    context: Context, tmp_path: Path, digest: str, suffix: str, top: str, backwards: bool
) -> None:
    source = write_reference(tmp_path / "again" / top, mtime=12345)
    if suffix:
        source = packed(source, tmp_path / f"again{suffix}", top, backwards)
    result = run(context, source)
    assert (result.state, result.digest) == ("known", digest)


@pytest.mark.parametrize("suffix", ["", ".zip", ".tar.gz"], ids=["folder", "zip", "tar.gz"])
@pytest.mark.parametrize("top", ["", "export"], ids=["no top folder", "top folder"])
def test_flat_layout_is_one_version_however_packed(context: Context, tmp_path: Path, suffix: str, top: str) -> None:
    first = run(context, write_flat(tmp_path / "flat"))
    source = write_flat(tmp_path / "again" / top, mtime=12345)
    if suffix:
        source = packed(source, tmp_path / f"again{suffix}", top)
    assert (first.state, run(context, source).digest) == ("ingested", first.digest)


def test_split_folder_may_be_called_val(context: Context, tmp_path: Path, digest: str) -> None:
    source = write_reference(tmp_path / "again", {**REFERENCE, "D": "val"})
    assert run(context, source).digest == digest


def test_second_ingest_sends_and_changes_nothing(context: Context, tmp_path: Path, digest: str) -> None:
    before, sent = everything(context), memory(context).bytes_sent
    result = run(context, tmp_path / "plain", model="another", budget="full")
    assert (result.state, result.digest, result.counts["train"]) == ("known", digest, 3)
    assert everything(context) == before
    assert memory(context).bytes_sent - sent == len(result.report)


def test_same_cases_in_another_dataset_are_another_version(context: Context, tmp_path: Path, digest: str) -> None:
    sent = memory(context).bytes_sent
    result = run(context, tmp_path / "plain", dataset="other")
    assert (result.state, result.digest != digest) == ("ingested", True)
    assert memory(context).bytes_sent - sent < 5000 + len(result.report)  # the manifest alone


def test_changed_pixel_makes_a_new_version(context: Context, tmp_path: Path, digest: str) -> None:
    source = write_reference(tmp_path / "again")
    write_case(source / "train" / "imgs", source / "train" / "targets", "A", seed=999)
    assert run(context, source).digest != digest


# ---- a refusal


def spoil(source: Path) -> None:
    """One problem of each stage: pairing, reading, pixels, mask."""
    (source / "train" / "targets" / "A.nii.gz").unlink()
    (source / "train" / "imgs" / "B.nii.gz").write_bytes(b"")
    (source / "train" / "imgs" / "C.nii.gz").write_bytes(nifti(np.full((48, 40), 7, np.uint8)))
    (source / "valid" / "targets" / "D.nii.gz").write_bytes(nifti(np.full((48, 40), 3, np.uint8)))


def test_all_problems_of_all_cases_come_at_once(context: Context, tmp_path: Path) -> None:
    source = write_reference(tmp_path)
    spoil(source)
    result = run(context, source)
    assert (result.state, result.digest, result.counts) == ("refused", None, {})
    assert codes(result) == [
        ("A", "missing_partner"),
        ("B", "unreadable"),
        ("C", "constant_image"),
        ("D", "empty_mask"),
    ]
    assert next(found.expected for found in result.problems if found.case_id == "D") == "a femur"


def test_refusal_leaves_a_record_with_its_problems_and_its_report(context: Context, tmp_path: Path) -> None:
    source = write_reference(tmp_path)
    spoil(source)
    result = run(context, source, allow=["unreadable"])
    (row,) = ingests(context)
    assert (row.ingest_id, row.state, row.digest, row.source) == (result.ingest_id, "refused", None, str(source))
    assert (row.layout, row.cases, row.errors, row.warnings, row.allowed) == ("reference", 4, 3, 2, ["unreadable"])
    assert row.problems == [problem.as_dict() for problem in result.problems]
    assert context.store.get(row.report_key) == result.report
    assert row.started_at < row.finished_at


def test_contact_sheets_are_kept_beside_the_report_and_named(context: Context, tmp_path: Path) -> None:
    result = run(context, write_reference(tmp_path))
    with context.registry.reading() as session:
        sheets = datasets.version_in_full(session, f"femur@{result.digest}")["sheets"]
        keys = [datasets.sheet_key(session, str(result.digest), sheet["position"]) for sheet in sheets]
        with pytest.raises(NotFound):
            datasets.sheet_key(session, str(result.digest), len(sheets))
    assert [sheet["title"] for sheet in sheets] == [
        f"Cases of {name} without a problem" for name in ("train", "val", "test")
    ]
    assert sheets[0]["alt"].endswith("outlined in blue: A; B; C")
    for key in keys:
        assert base64.b64encode(context.store.get(key)) in result.report, "the very picture of the report"
    assert set(keys) <= named_objects(context).keys(), "no collection takes them"


def test_work_folder_is_empty_behind_every_ingest(context: Context, tmp_path: Path) -> None:
    source = write_reference(tmp_path / "data")
    run(context, source)
    spoil(source)
    run(context, source)
    with pytest.raises(ConnectionError):
        run(replace(context, store=Breaking(1)), write_flat(tmp_path / "flat"), dataset="other")
    assert list(context.settings.work_folder.iterdir()) == []


@pytest.mark.parametrize("first", [False, True], ids=["first version", "later version"])
def test_refusal_leaves_registry_and_store_as_they_were(context: Context, tmp_path: Path, first: bool) -> None:
    source = write_reference(tmp_path / "data")
    if first:
        run(context, source)
    before = everything(context)
    write_case(source / "train" / "imgs", source / "train" / "targets", "Z", seed=1)
    spoil(source)
    assert run(context, source, model="another").state == "refused"
    assert everything(context) == before


def test_lifted_errors_leave_out_their_cases_alone(context: Context, tmp_path: Path) -> None:
    source = write_reference(tmp_path, {**REFERENCE, "F": "train"})
    (source / "train" / "targets" / "A.nii.gz").unlink()
    (source / "train" / "imgs" / "B.nii.gz").write_bytes(b"")
    write_case(source / "test" / "imgs", source / "test" / "targets", "C", seed=3)
    result = run(context, source, allow=["missing_partner", "unreadable", "duplicate_case"])
    assert (result.state, dict(result.counts)) == ("ingested", {"train": 1, "val": 1, "test": 2})
    splits = splits_of(context, result.digest)
    assert splits.keys() == {"C", "D", "E", "F"}
    assert splits["C"] == "test", "the first of the two by its path"
    with context.registry.reading() as session:
        version = session.get_one(DatasetVersion, result.digest)
        case = session.get_one(DatasetCase, (result.digest, "C"))
        assert {problem["case_id"] for problem in version.problems} == {"A", "B", "femur"}
        assert [(problem["code"], problem["allowed"]) for problem in case.problems] == [("duplicate_case", True)]


def test_source_of_which_lifting_leaves_nothing_is_refused(context: Context, tmp_path: Path) -> None:
    source = write_reference(tmp_path)
    for image in source.glob("*/imgs/*"):
        image.write_bytes(b"")
    result = run(context, source, allow=["unreadable"])
    assert (result.state, set(codes(result))) == ("refused", {("femur", "empty_split")})
    assert everything(context)[1] == []


def test_withdrawn_case_refuses_nothing_however_broken(context: Context, tmp_path: Path) -> None:
    first = run(context, write_reference(tmp_path / "one", {**REFERENCE, "F": "train"}))
    withdraw(context, "femur", "F", reason="asked", actor="me")
    two = write_reference(tmp_path / "two", {**REFERENCE, "F": "train"})
    (two / "train" / "targets" / "F.nii.gz").write_bytes(b"")
    result = run(context, two)
    assert (first.state, result.state) == ("ingested", "ingested")
    assert ("F", "withdrawn") in codes(result, errors_only=False)
    assert "F" not in splits_of(context, result.digest)


def test_source_without_training_cases_is_refused(context: Context, tmp_path: Path) -> None:
    source = write_reference(tmp_path)
    shutil.rmtree(source / "train")
    assert codes(run(context, source)) == [("femur", "empty_split")]


@pytest.mark.parametrize(("folder", "split"), [("valid", "val"), ("test", "test")])
def test_missing_split_is_drawn_from_train_and_said(context: Context, tmp_path: Path, folder: str, split: str) -> None:
    source = write_reference(tmp_path)
    shutil.rmtree(source / folder)
    result = run(context, source)
    assert (result.state, result.counts["train"], result.counts[split]) == ("ingested", 2, 1)
    drawn = next(found for found in result.problems if found.code == "split_drawn")
    assert drawn.found == f"no case in {split}: 1 drawn from train"


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz"])
def test_broken_archive_is_one_problem_with_its_name(context: Context, tmp_path: Path, name: str) -> None:
    archive = packed(write_reference(tmp_path / "data"), tmp_path / name)
    archive.write_bytes(archive.read_bytes()[:-2000])
    assert codes(run(context, archive)) == [(name, "broken_archive")]
    assert everything(context)[1] == []


def test_missing_source_is_not_found(context: Context, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        run(context, tmp_path / "none")


def test_few_test_cases_are_a_warning_that_names_the_gate(context: Context, tmp_path: Path) -> None:
    result = run(context, write_reference(tmp_path))
    (warning,) = (found for found in result.problems if found.case_id == "femur")
    assert (warning.code, warning.found, warning.is_error) == ("few_test_cases", "1 test cases", False)
    assert "20" in warning.expected
    with context.registry.reading() as session:
        assert session.get_one(DatasetVersion, result.digest).problems == [warning.as_dict()]


def test_result_is_small_and_plain(context: Context, tmp_path: Path) -> None:
    source = write_reference(tmp_path)
    spoil(source)
    assert json.loads(json.dumps(run(context, source).as_dict()))["problems"][0]["code"] == "missing_partner"


# ---- splits over the versions


def test_case_keeps_its_first_split_and_the_move_is_a_warning(context: Context, tmp_path: Path) -> None:
    run(context, write_reference(tmp_path / "one"))
    moved = {**REFERENCE, "A": "test", "E": "train", "F": "train"}
    result = run(context, write_reference(tmp_path / "two", moved))
    assert result.state == "ingested"
    assert codes(result, errors_only=False) == [
        ("A", "split_carried"),
        ("E", "split_carried"),
        ("femur", "few_test_cases"),
    ]
    assert splits_of(context, result.digest) == {
        "A": "train",
        "B": "train",
        "C": "train",
        "D": "val",
        "E": "test",
        "F": "train",
    }
    with context.registry.reading() as session:
        (warning,) = session.get_one(DatasetCase, (result.digest, "A")).problems
        assert warning["found"] == "in test, but train in an earlier version"


def test_first_split_holds_over_three_versions(context: Context, tmp_path: Path) -> None:
    with_f = {**REFERENCE, "F": "valid"}
    run(context, write_reference(tmp_path / "one", with_f))
    run(context, write_reference(tmp_path / "two"))  # F is gone
    third = run(context, write_reference(tmp_path / "three", {**REFERENCE, "F": "test"}))
    assert splits_of(context, third.digest)["F"] == "val"


def test_split_is_carried_within_its_dataset_only(context: Context, tmp_path: Path) -> None:
    run(context, write_reference(tmp_path / "one"), dataset="one")
    result = run(context, write_reference(tmp_path / "two", {**REFERENCE, "C": "test"}), dataset="two")
    assert splits_of(context, result.digest)["C"] == "test"


def test_drawn_splits_stay_when_cases_are_added(context: Context, tmp_path: Path) -> None:
    first = run(context, write_flat(tmp_path / "one"))
    second = run(context, write_flat(tmp_path / "two", [*"0123", *FLAT, *"XYZ"]))
    old, new = splits_of(context, first.digest), splits_of(context, second.digest)
    assert {case: new[case] for case in old} == old
    assert dict(second.counts) == {"train": 9, "val": 1, "test": 3}


def test_drawn_splits_are_the_same_on_another_machine(context: Context, tmp_path: Path) -> None:
    result = run(context, write_flat(tmp_path))
    # sha256 of "0:<id>" orders C, B, E, A, D, F; each goes where 7:1:2 is furthest from being filled
    drawn = {"C": "train", "B": "test", "E": "train", "A": "train", "D": "train", "F": "val"}
    assert splits_of(context, result.digest) == drawn
    again = run(replace(context, store=MemoryStore()), write_flat(tmp_path / "again"), dataset="other")
    assert splits_of(context, again.digest) == drawn


# ---- a crash in the middle


class Breaking(MemoryStore):
    """A store that fails at one of its puts."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at

    def put(self, data: bytes | Path, kind: str) -> str:
        self.left -= 1
        if self.left == 0:
            raise ConnectionError("gone")
        return super().put(data, kind)


@pytest.mark.parametrize("at", [1, 10, 11, 13, 14], ids=["raw", "last raw", "shard", "last shard", "manifest"])
def test_ingest_that_was_cut_off_can_be_repeated(context: Context, tmp_path: Path, at: int) -> None:
    source, expected = write_reference(tmp_path / "data"), run(context, write_reference(tmp_path / "other")).digest
    with context.registry.writing() as session:
        for table in reversed(Base.metadata.sorted_tables):
            session.execute(table.delete())
    broken = replace(context, store=Breaking(at))
    with pytest.raises(ConnectionError):
        run(broken, source)
    assert everything(broken)[0]["dataset_version"] == []
    result = run(broken, source)
    assert (result.state, result.digest) == ("ingested", expected)
    assert everything(broken)[1] == everything(context)[1]


# ---- sources in the store


@pytest.fixture
def drop(context: Context, tmp_path: Path) -> Callable[..., str]:
    """Puts an archive of the reference dataset under a key of the store."""

    def put(key: str, **splits: str) -> str:
        source = write_reference(tmp_path / "dropped" / str(len(splits)), {**REFERENCE, **splits})
        archive = packed(source, tmp_path / Path(key).name)
        context.store.put_named(archive, key)
        return f"s3://{context.settings.s3_bucket}/{key}"

    return put


@pytest.mark.parametrize("key", ["incoming/femur/v1.zip", "v1.tar.gz", "incoming/femur/v 1 (2).zip"])
def test_archive_in_the_store_is_the_same_version(
    context: Context, digest: str, drop: Callable[..., str], key: str
) -> None:
    assert run(context, drop(key)).digest == digest


@pytest.mark.parametrize("neighbour", ["v1.zip.sha256", "v1.zip2", "v10.zip", "v1"])
def test_object_whose_name_begins_alike_does_not_disturb(
    context: Context, digest: str, drop: Callable[..., str], neighbour: str
) -> None:
    context.store.put_named(b"something else", f"incoming/femur/{neighbour}")
    assert run(context, drop("incoming/femur/v1.zip")).digest == digest


@pytest.mark.parametrize("slash", ["", "/"], ids=["bare", "with slash"])
def test_folder_in_the_store_is_the_same_version(context: Context, tmp_path: Path, digest: str, slash: str) -> None:
    for path in (found for found in (tmp_path / "plain").rglob("*") if found.is_file()):
        context.store.put_named(path, f"drops/v1/{path.relative_to(tmp_path / 'plain')}")
    context.store.put_named(b"another drop", "drops/v10/train/imgs/Q.nii.gz")
    assert run(context, f"s3://{context.settings.s3_bucket}/drops/v1{slash}").digest == digest


@pytest.mark.parametrize("path", ["s3://femur/none", "s3://other/incoming/femur/v1.zip", "s3://femur/incoming/femur/v"])
def test_what_the_store_does_not_have_is_not_found(context: Context, drop: Callable[..., str], path: str) -> None:
    drop("incoming/femur/v1.zip")
    with pytest.raises(NotFound):
        run(context, path)


def test_key_that_leaves_the_folder_is_refused(context: Context, tmp_path: Path) -> None:
    context.store.put_named(b"evil", "drops/../evil")
    assert codes(run(context, "s3://femur/drops")) == [("drops", "hostile_archive")]
    assert list(tmp_path.rglob("evil")) == []


# ---- the ledger of what was dropped


def ledger(context: Context) -> list[tuple[str, str, str | None]]:
    with context.registry.reading() as session:
        rows = session.scalars(select(IncomingObject).order_by(IncomingObject.seen_at))
        return [(row.key, row.state, row.digest) for row in rows]


DEFAULTS = IngestParameters(size=32)


def test_dropped_object_waits_once_under_the_dataset_of_its_folder(context: Context, drop: Callable[..., str]) -> None:
    assert look_for_incoming(context) == []
    drop("incoming/pelvis/v1.zip")
    drop("elsewhere/v1.zip")
    first, second = look_for_incoming(context), look_for_incoming(context)
    assert first == second
    assert [(row["key"], row["dataset"]) for row in first] == [("incoming/pelvis/v1.zip", "pelvis")]
    assert ledger(context) == [("incoming/pelvis/v1.zip", "waiting", None)]


@pytest.mark.parametrize(
    ("key", "dataset"),
    [("incoming/v1.zip", "femur"), ("incoming/a/v1.zip", "a"), ("incoming/a/2026/v1.zip", "a")],
    ids=["no folder", "folder", "two folders"],
)
def test_dataset_is_the_first_folder_of_the_key(
    context: Context, drop: Callable[..., str], key: str, dataset: str
) -> None:
    drop(key)
    (row,) = look_for_incoming(context)
    result = ingest_incoming(context, row, DEFAULTS)
    assert (row["dataset"], result.dataset, result.state) == (dataset, dataset, "ingested")


def test_ingested_object_is_settled_and_does_not_wait_again(context: Context, drop: Callable[..., str]) -> None:
    drop("incoming/femur/v1.zip")
    (row,) = look_for_incoming(context)
    result = ingest_incoming(context, row, DEFAULTS)
    assert ledger(context) == [("incoming/femur/v1.zip", "ingested", result.digest)]
    assert look_for_incoming(context) == []
    with context.registry.reading() as session:
        settled = session.get_one(IncomingObject, (row["key"], row["etag"]))
        assert settled.settled_at is not None
        assert settled.settled_at > settled.seen_at


def test_new_content_under_the_same_name_waits_again(context: Context, drop: Callable[..., str]) -> None:
    drop("incoming/femur/v1.zip")
    ingest_incoming(context, look_for_incoming(context)[0], DEFAULTS)
    drop("incoming/femur/v1.zip", F="train")
    (row,) = look_for_incoming(context)
    result = ingest_incoming(context, row, DEFAULTS)
    assert (result.state, result.counts["train"]) == ("ingested", 4)
    assert len(ledger(context)) == 2


def test_same_content_under_another_name_is_known(context: Context, drop: Callable[..., str]) -> None:
    drop("incoming/femur/v1.zip")
    drop("incoming/femur/v2.tar.gz")
    results = [ingest_incoming(context, row, DEFAULTS) for row in look_for_incoming(context)]
    assert [result.state for result in results] == ["ingested", "known"]
    assert [state for _, state, _ in ledger(context)] == ["ingested", "ingested"]


def test_waiting_objects_come_oldest_first(context: Context, drop: Callable[..., str]) -> None:
    drop("incoming/femur/z.zip")
    look_for_incoming(context)
    drop("incoming/femur/a.zip", F="train")
    assert [row["key"] for row in look_for_incoming(context)] == ["incoming/femur/z.zip", "incoming/femur/a.zip"]


@pytest.mark.parametrize(
    ("key", "detail"),
    [
        ("incoming/femur/notes.txt", "notes.txt: broken_archive"),
        ("incoming/Not A Name/v1.zip", "incoming/Not A Name/v1.zip: not_ingestible"),
    ],
    ids=["no archive", "no dataset name"],
)
def test_refused_object_is_recorded_with_its_detail_and_not_tried_again(
    context: Context, key: str, detail: str
) -> None:
    context.store.put_named(b"not an archive", key)
    (row,) = look_for_incoming(context)
    assert ingest_incoming(context, row, DEFAULTS).state == "refused"
    assert ledger(context) == [(key, "refused", None)]
    with context.registry.reading() as session:
        assert session.scalars(select(IncomingObject.detail)).one().startswith(detail)
    assert look_for_incoming(context) == []


def test_object_that_is_gone_before_its_turn_is_forgotten(context: Context, drop: Callable[..., str]) -> None:
    drop("incoming/femur/v1.zip")
    (row,) = look_for_incoming(context)
    context.store.delete(row["key"])
    assert ingest_incoming(context, row, DEFAULTS) is None
    assert look_for_incoming(context) == []
    assert ledger(context) == []


def test_object_that_is_replaced_before_its_turn_is_ingested_under_its_new_content(
    context: Context, drop: Callable[..., str]
) -> None:
    drop("incoming/femur/v1.zip")
    (old,) = look_for_incoming(context)
    drop("incoming/femur/v1.zip", F="train")
    assert ingest_incoming(context, old, DEFAULTS) is None
    (new,) = look_for_incoming(context)
    result = ingest_incoming(context, new, DEFAULTS)
    assert (result.state, result.counts["train"], new["etag"] != old["etag"]) == ("ingested", 4, True)
    assert [state for _, state, _ in ledger(context)] == ["ingested"]


def test_folder_of_loose_files_is_one_drop(context: Context, tmp_path: Path, digest: str) -> None:
    files = [path for path in (tmp_path / "plain").rglob("*") if path.is_file()]
    for path in files:
        context.store.put_named(path, f"incoming/femur/march/{path.relative_to(tmp_path / 'plain')}")
        context.store.put_named(path, f"incoming/hip/{path.relative_to(tmp_path / 'plain')}")
    march, loose = look_for_incoming(context)
    assert [march["key"], loose["key"]] == ["incoming/femur/march/", "incoming/hip/"]
    assert (loose["dataset"], ingest_incoming(context, march, DEFAULTS).digest) == ("hip", digest)
    assert ingest_incoming(context, loose, DEFAULTS).state == "ingested"
    write_case(tmp_path / "imgs", tmp_path / "targets", "F", seed=70)
    for folder in ("imgs", "targets"):
        context.store.put_named(tmp_path / folder / "F.nii.gz", f"incoming/femur/march/train/{folder}/F.nii.gz")
    (grown,) = look_for_incoming(context)
    assert (grown["key"], ingest_incoming(context, grown, DEFAULTS).counts["train"]) == ("incoming/femur/march/", 4)


def test_drop_keeps_the_standing_order_of_its_dataset(
    context: Context, drop: Callable[..., str], tmp_path: Path
) -> None:
    run(context, write_flat(tmp_path / "flat"), model="hip", budget="full")
    drop("incoming/femur/v1.zip")
    ingest_incoming(context, look_for_incoming(context)[0], DEFAULTS)
    with context.registry.reading() as session:
        dataset = session.get_one(Dataset, "femur")
        assert (dataset.model, dataset.budget) == ("hip", "full")


def test_drop_is_read_as_its_dataset_was_before(context: Context, drop: Callable[..., str], tmp_path: Path) -> None:
    first = ingest(context, IngestParameters(path=str(write_flat(tmp_path / "flat")), femur_class="2", size=40))
    drop("incoming/femur/v1.zip", F="train", G="train")
    second = ingest_incoming(context, look_for_incoming(context)[0], IngestParameters())
    with context.registry.reading() as session:
        versions = [session.get_one(DatasetVersion, found.digest) for found in (first, second)]
        assert [(version.femur_class, version.size) for version in versions] == [("ILIAK (2)", 40), ("ILIAK (2)", 40)]


def test_second_ingest_keeps_what_it_does_not_name(context: Context, tmp_path: Path) -> None:
    run(context, write_flat(tmp_path / "one"), model="hip", budget="smoke")
    run(context, write_flat(tmp_path / "two", [*FLAT, "X"]))
    with context.registry.reading() as session:
        dataset = session.get_one(Dataset, "femur")
        assert (dataset.model, dataset.budget) == ("hip", "smoke")


def test_first_ingest_that_names_nothing_gets_the_defaults(context: Context, tmp_path: Path) -> None:
    result = ingest(context, IngestParameters(path=str(write_flat(tmp_path))))
    with context.registry.reading() as session:
        version, dataset = session.get_one(DatasetVersion, result.digest), session.get_one(Dataset, "femur")
        assert (version.femur_class, version.size, dataset.model, dataset.budget) == (
            "FEMUR (1)",
            256,
            "femur",
            "nightly",
        )


def test_full_disk_leaves_the_drop_waiting(
    context: Context, drop: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drop("incoming/femur/v1.zip")
    (row,) = look_for_incoming(context)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10}))
    with pytest.raises(FemurError, match="Make room"):
        ingest_incoming(context, row, DEFAULTS)
    assert look_for_incoming(context) == [row]


def test_version_that_comes_in_between_carries_its_splits(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (
        write_reference(tmp_path / "one"),
        write_reference(tmp_path / "two", {**REFERENCE, "E": "train", "F": "test"}),
    )
    real = steps_publish._stored

    def meanwhile(*arguments: Any) -> Manifest:
        monkeypatch.setattr(steps_publish, "_stored", real)
        run(context, one)
        return real(*arguments)

    monkeypatch.setattr(steps_publish, "_stored", meanwhile)
    assert splits_of(context, run(context, two).digest)["E"] == "test"
