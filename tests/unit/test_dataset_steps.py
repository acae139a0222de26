"""Dataset versions looked at, compared, exported and withdrawn from."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select
from sqlalchemy.orm import Session

from femur_tasks.dataset.manifest import Manifest, ManifestCase
from femur_tasks.errors import DigestMismatch, FemurError, NotFound
from femur_tasks.parameters import IngestParameters
from femur_tasks.registry.database import Registry
from femur_tasks.registry.tables import Champion, DatasetCase, DatasetDrift, DatasetVersion, Ingest, Withdrawal
from femur_tasks.steps import datasets
from femur_tasks.steps.context import Context
from femur_tasks.steps.export import export
from femur_tasks.steps.ingest import ingest
from femur_tasks.steps.withdrawals import withdraw
from tests.radiographs import Array, grey_hw, labels_hw, nifti, write_reference
from tests.registry_rows import NOON, dataset_version, digest_of, model_version

SPLITS = {"A": "train", "B": "val", "C": "test"}
HOUR = timedelta(hours=1)


def problem(code: str, case_id: str, allowed: bool = False, found: str = "this") -> dict[str, Any]:
    return {"code": code, "case_id": case_id, "found": found, "expected": "that", "allowed": allowed, "todo": "look"}


def case_row(digest: str, case_id: str, **values: Any) -> DatasetCase:
    given = {
        "patient": case_id,
        "split": "train",
        "image_sha256": digest_of(case_id),
        "mask_sha256": "m",
        "height_px": 40,
        "width_px": 48,
        "problems": [],
    }
    return DatasetCase(digest=digest, case_id=case_id, **{**given, **values})


def ingest_row(session: Session, ingest_id: str, **values: Any) -> None:
    given = {"dataset": "femur", "source": "xrays", "state": "ingested", "digest": None, "layout": "reference"}
    counts = {"cases": 3, "errors": 0, "warnings": 1, "allowed": [], "problems": []}
    times = {"report_key": "reports/none", "started_at": NOON, "finished_at": NOON}
    session.add(Ingest(ingest_id=ingest_id, **{**given, **counts, **times, **values}))
    session.flush()


# ---- versions as rows


def test_versions_come_newest_first_with_champion_and_warnings(registry: Registry) -> None:
    with registry.writing() as session:
        old = dataset_version(session, "old")
        new = dataset_version(session, "new", at=NOON + HOUR)
        other = dataset_version(session, "other", name="clinic", at=NOON - HOUR)
        old.problems = [problem("few_test_cases", "femur")]
        session.add_all(
            [
                case_row(old.digest, "A", problems=[problem("one_femur", "A"), problem("soft_mask", "A")]),
                case_row(old.digest, "B", problems=[problem("one_femur", "B")]),
                case_row(new.digest, "A"),
            ]
        )
        champion = model_version(session, 3, old.digest)
        model_version(session, 4, new.digest)
        session.add(Champion(model="femur", model_version_id=champion.id, since=NOON))
        digests = [new.digest, old.digest, other.digest]
    with registry.reading() as session:
        rows = datasets.versions(session)
        assert [row["digest"] for row in rows] == digests
        assert [row["warnings"] for row in rows] == [0, 4, 0]
        assert [row["champion_of"] for row in rows] == [[], ["femur:3"], []]
        assert [row["dataset"] for row in datasets.versions(session, "clinic")] == ["clinic"]
        assert json.loads(json.dumps(rows)) == rows


def test_unknown_dataset_is_told_with_those_there_are(context: Context) -> None:
    with context.registry.writing() as session:
        dataset_version(session, name="clinic")
    with context.registry.reading() as session, pytest.raises(NotFound, match="clinic"):
        datasets.versions(session, "clinik")


def test_version_in_full_groups_problems_and_puts_what_drifted_first(registry: Registry) -> None:
    with registry.writing() as session:
        before = dataset_version(session, "before", name="first")
        version = dataset_version(session)
        version.problems = [problem("few_test_cases", "femur"), problem("unreadable", "Z", allowed=True)]
        ids = [f"C{number}" for number in range(5)]
        session.add_all(
            case_row(version.digest, name, problems=[problem("one_femur", name, found=f"of {name}")]) for name in ids
        )
        for feature, split, level in (
            ("femur_x_pct", "all", None),
            ("height_px", "test", "none"),
            ("width_px", "train", "large"),
            ("width_px", "all", "large"),
            ("intensity_sd", "val", "some"),
        ):
            figures = {"psi": 0.5, "ks": 0.5, "ks_p": 0.001, "before_cases": 9, "after_cases": 9}
            session.add(
                DatasetDrift(
                    digest=version.digest,
                    against_digest=before.digest,
                    feature=feature,
                    split=split,
                    level=level,
                    **figures,
                )
            )
        session.add(Withdrawal(dataset="femur", case_id="C9", image_sha256="9", actor="cli:x", reason="asked", at=NOON))
        ingest_row(session, "i-1", digest=version.digest)
        ingest_row(session, "i-2", state="refused")
    with registry.reading() as session:
        row = datasets.version_in_full(session, "femur")
    assert [(found["code"], found["lifted"], found["count"]) for found in row["problems"]] == [
        ("one_femur", False, 5),
        ("few_test_cases", False, 1),
        ("unreadable", True, 1),
    ]
    assert row["problems"][0]["examples"] == [{"case_id": name, "found": f"of {name}"} for name in ids[:3]]
    assert [(found["feature"], found["split"]) for found in row["drift"]] == [
        ("width_px", "all"),
        ("width_px", "train"),
        ("intensity_sd", "val"),
        ("height_px", "test"),
        ("femur_x_pct", "all"),
    ]
    assert row["drift_against"] == f"first@{digest_of('before')}"
    assert [found["case_id"] for found in row["withdrawals"]] == ["C9"]
    assert row["withdrawn_cases"] == []
    assert [found["ingest_id"] for found in row["ingests"]] == ["i-1"]
    assert json.loads(json.dumps(row)) == row


def test_comparison_tells_what_came_what_went_and_what_changed(context: Context) -> None:
    with context.registry.writing() as session:
        old = dataset_version(session, "old").digest
        new = dataset_version(session, "new", at=NOON + HOUR).digest
        session.add_all(case_row(old, case_id) for case_id in ("gone", "image", "mask", "split", "spacing", "same"))
        session.add_all(
            [
                case_row(new, "came"),
                case_row(new, "image", image_sha256="other"),
                case_row(new, "mask", mask_sha256="other", split="val"),
                case_row(new, "split", split="test"),
                case_row(new, "spacing", spacing_x_mm=0.1, spacing_y_mm=0.1),
                case_row(new, "same"),
            ]
        )
    with context.registry.reading() as session:
        found = datasets.compare(session, f"femur@{old[:8]}", "femur")
    assert (found["before"], found["after"]) == (f"femur@{old}", f"femur@{new}")
    assert (found["added"], found["removed"], found["unchanged"]) == (["came"], ["gone"], 1)
    assert found["changed"] == {
        "picture": ["image"],
        "mask": ["mask"],
        "split": ["mask", "split"],
        "spacing": ["spacing"],
    }


def test_comparison_measures_drift_from_the_first_to_the_second(context: Context) -> None:
    with context.registry.writing() as session:
        for content, start, count in (("dark", 0, 8), ("bright", 100, 9)):
            digest = dataset_version(session, content).digest
            session.add_all(case_row(digest, f"C{n}", intensity_mean=start + n) for n in range(count))
    with context.registry.reading() as session:
        found = datasets.compare(session, *(f"femur@{digest_of(content)}" for content in ("dark", "bright")))
    first = found["drift"][0]
    assert (first["feature"], first["level"], first["ks"]) == ("intensity_mean", "large", 1.0)
    assert (first["before_cases"], first["after_cases"]) == (8, 9)


def test_ingests_come_newest_first_and_the_newest_report_is_the_default(context: Context) -> None:
    keys = {name: context.store.put(name.encode(), "reports") for name in ("one", "two", "three")}
    with context.registry.writing() as session:
        for hours, (name, dataset) in enumerate((("one", "femur"), ("two", "clinic"), ("three", "femur"))):
            ingest_row(session, name, dataset=dataset, report_key=keys[name], finished_at=NOON + hours * HOUR)
    with context.registry.reading() as session:
        assert [row["ingest_id"] for row in datasets.ingests(session)] == ["three", "two", "one"]
        assert [row["ingest_id"] for row in datasets.ingests(session, "femur")] == ["three", "one"]
    assert datasets.ingest_report(context, None) == ("three", b"three")
    assert datasets.ingest_report(context, None, "clinic") == ("two", b"two")
    assert datasets.ingest_report(context, "one") == ("one", b"one")
    with pytest.raises(NotFound, match="femur dataset ingests"):
        datasets.ingest_report(context, "one", "clinic")


# ---- withdrawals


@pytest.fixture
def two_versions(context: Context) -> Context:
    """Case A, whose picture changed in the second version, and the same picture as another dataset's Q."""
    with context.registry.writing() as session:
        old = dataset_version(session, "old").digest
        new = dataset_version(session, "new", at=NOON + HOUR).digest
        other = dataset_version(session, "other", name="clinic").digest
        session.add_all([case_row(old, "A", image_sha256="first"), case_row(new, "A", image_sha256="second")])
        session.add_all([case_row(new, "HIP_0001"), case_row(other, "Q", image_sha256="second")])
    return context


def short(content: str, name: str = "femur") -> str:
    return f"{name}@{digest_of(content)[:12]}"


def withdrawals(context: Context) -> list[tuple[str, str, str, str, str]]:
    with context.registry.reading() as session:
        rows = session.scalars(select(Withdrawal))
        return [(row.dataset, row.case_id, row.image_sha256, row.actor, row.reason) for row in rows]


def test_withdrawal_names_the_newest_picture_and_who_still_holds_it(two_versions: Context) -> None:
    found = withdraw(two_versions, "femur", "A", " asked for ", "cli:me")
    assert found.state == "withdrawn"
    assert withdrawals(two_versions) == [("femur", "A", "second", "cli:me", "asked for")]
    assert found.held_by == ((short("new"), "A"), (short("old"), "A"))
    assert found.elsewhere == ((short("other", "clinic"), "Q"),)


def test_second_withdrawal_tells_of_the_first_and_changes_nothing(two_versions: Context) -> None:
    first = withdraw(two_versions, "femur", "A", "asked for", "cli:me")
    again = withdraw(two_versions, "femur", "A", "another reason", "cli:you")
    assert (again.state, again.actor, again.reason, again.at) == ("already withdrawn", "cli:me", "asked for", first.at)
    assert len(withdrawals(two_versions)) == 1


def test_dry_run_tells_the_same_and_records_nothing(two_versions: Context) -> None:
    found = withdraw(two_versions, "femur", "A", "asked for", "cli:me", dry_run=True)
    assert (found.state, found.image_sha256, len(found.held_by)) == ("dry run", "second", 2)
    assert withdrawals(two_versions) == []


@pytest.mark.parametrize(
    ("dataset", "case_id", "reason", "said"),
    [
        ("femur", "HIP_001", "asked", "Cases with such an id: HIP_0001"),
        ("femur", "zzz", "asked", "dataset_case"),
        ("clinic", "A", "asked", "none of its versions"),
        ("other", "A", "asked", "clinic, femur"),
        ("femur", "A", "  ", "Expected a reason"),
    ],
    ids=["near", "nothing near", "another dataset's", "unknown dataset", "no reason"],
)
def test_withdrawal_of_what_is_not_there_is_told(
    two_versions: Context, dataset: str, case_id: str, reason: str, said: str
) -> None:
    with pytest.raises(FemurError, match=said):
        withdraw(two_versions, dataset, case_id, reason, "cli:me")
    assert withdrawals(two_versions) == []


def test_next_version_is_without_the_withdrawn_case(context: Context, tmp_path: Path) -> None:
    source = write_reference(tmp_path / "data")
    asked = IngestParameters(path=str(source), size=32, femur_class="1")
    first = ingest(context, asked)
    withdraw(context, "femur", "A", "asked for", "cli:me")
    second = ingest(context, asked)
    assert (second.state, second.counts["train"]) == ("ingested", 2)
    with context.registry.reading() as session:
        found = datasets.compare(session, f"femur@{first.digest}", f"femur@{second.digest}")
        assert (found["removed"], found["added"], found["unchanged"]) == (["A"], [], 4)
        held = [datasets.version_in_full(session, f"femur@{made.digest}") for made in (first, second)]
    assert [row["withdrawn_cases"] for row in held] == [["A"], []]


# ---- export


def pixels_sha256(pixels_hw: Array) -> str:
    return hashlib.sha256(f"{pixels_hw.shape}\n".encode() + pixels_hw.tobytes()).hexdigest()


def stored_version(
    context: Context,
    wrong: str = "",
    patients: Mapping[str, str] | None = None,
    ids: Mapping[str, str] = SPLITS,
    problems: Mapping[str, list[dict[str, Any]]] | None = None,
    raw_mask: Callable[[Array], bytes] = lambda labels: nifti(labels.T),
) -> Manifest:
    """A version of three cases as an ingest leaves it; the case `wrong` has another digest than its raw picture."""
    described = []
    for seed, (case_id, split) in enumerate(ids.items()):
        grey, labels = grey_hw(seed), labels_hw(seed)
        described.append(
            ManifestCase(
                case_id=case_id,
                patient=(patients or {}).get(case_id, case_id),
                split=split,
                image_sha256="0" * 64 if case_id == wrong else pixels_sha256(grey),
                mask_sha256=pixels_sha256((labels == 1).astype(np.uint8)),
                height_px=40,
                width_px=48,
                spacing_mm=(0.25, 0.5),
                raw_image_key=context.store.put(nifti(grey.T, "mm", (0.25, 0.5)), "raw"),
                raw_mask_key=context.store.put(raw_mask(labels), "raw"),
            )
        )
    manifest = Manifest("femur", 32, (1,), tuple(described), {})
    with context.registry.writing() as session:
        made = dataset_version(session, size=32)
        made.digest, made.manifest_key = manifest.digest, context.store.put(manifest.to_json(), "manifests")
        session.flush()
        session.add_all(
            case_row(
                manifest.digest,
                case.case_id,
                image_sha256=case.image_sha256,
                problems=(problems or {}).get(case.case_id, []),
            )
            for case in manifest.cases
        )
    return manifest


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_export_ingested_again_is_the_same_version(context: Context, tmp_path: Path, out: Path) -> None:
    source = write_reference(tmp_path / "data")
    deep = np.linspace(-500, 3000, 40 * 48).reshape(48, 40).astype(np.int16)
    (source / "train" / "imgs" / "A.nii.gz").write_bytes(gzip.compress(nifti(deep, "mm", (0.139, 0.143))))
    first = ingest(context, IngestParameters(path=str(source), size=32, femur_class="2"))
    assert first.state == "ingested"
    assert export(context, "femur", out).digest == first.digest
    again = ingest(context, IngestParameters(path=str(out), femur_class="femur"))
    assert (again.state, again.digest) == ("known", first.digest)


def test_export_writes_the_reference_layout(context: Context, out: Path) -> None:
    manifest = stored_version(context)
    told: list[tuple[int, int]] = []
    done = export(context, "femur", out, lambda *how_far: told.append(how_far))
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert (done.dataset, done.digest, done.size, done.cases, done.kept) == ("femur", manifest.digest, 32, 3, 0)
    assert sorted(files_of(out)) == [
        "_classes.csv",
        "export.json",
        "test/imgs/C.nii.gz",
        "test/targets/C.nii.gz",
        "train/imgs/A.nii.gz",
        "train/targets/A.nii.gz",
        "valid/imgs/B.nii.gz",
        "valid/targets/B.nii.gz",
    ]
    assert (out / "_classes.csv").read_text() == "Pixel Value, Class\n0, background\n1, femur\n"
    image, mask = (nib.load(out / "valid" / folder / "B.nii.gz") for folder in ("imgs", "targets"))
    np.testing.assert_array_equal(np.asarray(image.dataobj).T, grey_hw(1))
    np.testing.assert_array_equal(np.asarray(mask.dataobj).T, labels_hw(1) == 1)
    assert [tuple(float(zoom) for zoom in found.header.get_zooms()) for found in (image, mask)] == [(0.25, 0.5)] * 2
    assert image.header.get_xyzt_units()[0] == "mm"


def drawn_as_png(labels: Array) -> bytes:
    """A mask of outlines as an ingest stores it."""
    buffer = io.BytesIO()
    Image.fromarray((labels == 1).astype(np.uint8) * np.uint8(255)).save(buffer, format="PNG")
    return buffer.getvalue()


def test_mask_of_outlines_is_exported_as_class_1(context: Context, out: Path) -> None:
    stored_version(context, raw_mask=drawn_as_png)
    export(context, "femur", out)
    mask = nib.load(out / "test" / "targets" / "C.nii.gz")
    np.testing.assert_array_equal(np.asarray(mask.dataobj).T, labels_hw(2) == 1)


def test_export_keeps_what_is_whole_and_mends_the_rest(context: Context, out: Path) -> None:
    stored_version(context)
    export(context, "femur", out)
    whole = files_of(out)
    kept = (out / "test/imgs/C.nii.gz").stat()
    (out / "train/targets/A.nii.gz").unlink()
    (out / "valid/imgs/B.nii.gz").write_bytes(whole["valid/imgs/B.nii.gz"][:-20])
    (out / "valid/imgs/B.nii.gz.part").write_bytes(b"killed")
    assert export(context, "femur", out).kept == 1
    assert files_of(out) == whole
    assert (out / "test/imgs/C.nii.gz").stat().st_mtime_ns == kept.st_mtime_ns


@pytest.mark.parametrize("file", ["imgs", "targets"])
def test_whole_file_of_another_case_is_replaced(context: Context, out: Path, file: str) -> None:
    stored_version(context)
    export(context, "femur", out)
    whole = files_of(out)
    (out / "train" / file / "A.nii.gz").write_bytes(whole[f"valid/{file}/B.nii.gz"])
    export(context, "femur", out)
    assert files_of(out) == whole


def test_export_that_broke_off_goes_on(context: Context, out: Path) -> None:
    lost = stored_version(context).cases[1].raw_image_key
    data = context.store.get(lost)
    context.store.delete(lost)
    with pytest.raises(NotFound, match=lost):
        export(context, "femur", out)
    context.store.put(data, "raw")
    done = export(context, "femur", out)
    assert done.kept >= 1
    assert len(files_of(out)) == 8


def test_pixels_that_are_not_the_manifests_are_never_written(context: Context, out: Path) -> None:
    stored_version(context, wrong="B")
    with pytest.raises(DigestMismatch, match=r"Case B: Expected pixels with sha256 0{64}"):
        export(context, "femur", out)
    assert not (out / "valid").exists()


def test_raw_file_that_cannot_be_read_names_its_case(context: Context, out: Path) -> None:
    manifest = stored_version(context)
    broken = {**vars(manifest.cases[0]), "raw_mask_key": context.store.put(b"no picture", "raw")}
    spoilt = Manifest("femur", 32, (1,), (ManifestCase(**broken), *manifest.cases[1:]), {})
    with context.registry.writing() as session:
        session.get_one(DatasetVersion, manifest.digest).manifest_key = context.store.put(spoilt.to_json(), "manifests")
    with pytest.raises(DigestMismatch, match="Case A"):
        export(context, "femur", out)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"thesis.doc": b"mine"}, "which holds something else"),
        ({"export.json": b'{"digest": "abc"}'}, "which holds something else"),
        ({"export.json": b"[1"}, "which holds something else"),
        ({"export.json": b"OURS", "train/imgs/Z.nii.gz": b"another"}, "Z.nii.gz"),
        ({"train/imgs/A.nii.gz": b"whose"}, "which holds something else"),
    ],
    ids=["other file", "other version", "damaged mark", "one file more", "no mark"],
)
def test_folder_with_anything_else_is_left_as_it_is(
    context: Context, out: Path, files: dict[str, bytes], said: str
) -> None:
    mark = json.dumps({"digest": stored_version(context).digest}).encode()
    for name, data in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(data.replace(b"OURS", mark))
    before = files_of(out)
    with pytest.raises(FemurError, match=said):
        export(context, "femur", out)
    assert files_of(out) == before


def test_out_that_is_a_file_is_told(context: Context, out: Path) -> None:
    stored_version(context)
    out.write_bytes(b"mine")
    with pytest.raises(FemurError, match="Expected a folder"):
        export(context, "femur", out)
    assert out.read_bytes() == b"mine"


def test_case_id_that_leads_elsewhere_is_refused(context: Context, tmp_path: Path) -> None:
    stored_version(context, ids={"A": "train", "../../../B": "val", "C": "test"})
    with pytest.raises(FemurError, match="a file's name"):
        export(context, "femur", tmp_path / "deep" / "down" / "out")
    assert list(tmp_path.rglob("*.gz")) == []


def test_export_tells_what_the_layout_cannot(context: Context, out: Path) -> None:
    lifted = {"A": [problem("femur_area", "A", allowed=True), problem("one_femur", "A")]}
    stored_version(context, patients={"A": "P", "B": "P"}, problems=lifted)
    withdraw(context, "femur", "C", "asked for", "cli:me")
    done = export(context, "femur", out)
    assert (done.allowed, done.shared_patients, done.withdrawn) == (("femur_area",), 1, ("C",))
