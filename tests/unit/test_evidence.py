"""What the gate is given: slices by size, source and novelty, and the account of looks at the same test cases."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy.orm import Session

from femur_tasks.evaluation.metrics import IMPLEMENTATION
from femur_tasks.registry.tables import ComparisonManifest, DatasetCase, DatasetVersion, ModelVersion
from femur_tasks.steps.context import Context
from femur_tasks.steps.evidence import cases_of, evidence, look_at
from femur_tasks.steps.recording import first_sources
from tests import registry_rows as rows


def version(session: Session, name: str, source: str, heights: dict[str, int], day: int) -> DatasetVersion:
    """A version whose cases come from `source`, but for those that an earlier one had."""
    found = rows.dataset_version(session, name, at=rows.NOON + timedelta(days=day))
    earlier = first_sources(session, "femur", [f"i{case_id}" for case_id in heights])
    for case_id, height_px in heights.items():
        session.add(
            DatasetCase(
                digest=found.digest, case_id=case_id, patient=case_id, split="test", image_sha256=f"i{case_id}",
                mask_sha256=f"m{case_id}", height_px=height_px, width_px=100, problems=[],
                source=earlier.get(f"i{case_id}", source),
            )
        )  # fmt: skip
    session.flush()
    return found


def compared(session: Session, digest: str, version: DatasetVersion, cases: str, cases_digest: str = "c") -> str:
    session.add(
        ComparisonManifest(
            digest=digest, dataset_digest=version.digest, cases_digest=cases_digest,
            cases=[[case, f"i{case}", f"m{case}"] for case in cases], excluded=["X"], frozen_at=rows.NOON,
        )
    )  # fmt: skip
    session.flush()
    return digest


@pytest.fixture
def two_versions(context: Context) -> tuple[Context, int, str]:
    """A champion of the first version, and a comparison on the second one's test cases."""
    with context.registry.writing() as session:
        first = version(session, "one", "old.zip", {"A": 512, "B": 513}, 0)
        second = version(session, "two", "new.zip", {"A": 512, "B": 513, "C": 1536, "D": 2874}, 1)
        champion = rows.model_version(session, 1, first.digest, artefact_bytes=10_800_000).id
        return context, champion, compared(session, "m", second, "ABCD")


def test_slices_of_a_comparison(two_versions: tuple[Context, int, str]) -> None:
    context, champion, manifest = two_versions
    with context.registry.reading() as session:
        found = cases_of(session, manifest, champion)
    assert (found.compared, found.excluded) == (tuple("ABCD"), ("X",))
    assert found.slices == {
        "pictures of 1 to 512 px": ["A"],
        "pictures of 513 to 1536 px": ["B", "C"],
        "pictures above 1536 px": ["D"],
        "source old.zip": ["A", "B"],
        "source new.zip": ["C", "D"],
        "known cases": ["A", "B"],
        "new cases": ["C", "D"],
    }


def test_first_champion_has_no_known_cases_and_one_slice_of_all_is_none(two_versions: tuple[Context, int, str]) -> None:
    context, _, _ = two_versions
    with context.registry.writing() as session:
        small = compared(session, "small", session.get_one(DatasetVersion, rows.digest_of("two")), "A")
        assert cases_of(session, small, None).slices == {}


def test_cost_is_part_of_the_evidence(two_versions: tuple[Context, int, str]) -> None:
    context, champion, manifest = two_versions
    with context.registry.writing() as session:
        model = session.get_one(ModelVersion, champion)
        assert evidence(session, champion, manifest) is None
        rows.evaluation(session, model, manifest, metric="another")
        assert evidence(session, champion, manifest) is None, "another implementation's scores are no evidence"
        rows.evaluation(session, model, manifest, metric=IMPLEMENTATION)
        found = evidence(session, champion, manifest)
    assert found is not None
    assert (found.megabytes, found.latency_ms) == (10.8, 50.0)


def test_looks_are_counted_by_model_and_by_test_cases(two_versions: tuple[Context, int, str]) -> None:
    context, champion, manifest = two_versions
    with context.registry.writing() as session:
        second = session.get_one(DatasetVersion, rows.digest_of("two"))
        same = compared(session, "same cases, more training", second, "ABCD", "c")
        other = compared(session, "other cases", second, "ABC", "d")
        model = session.get_one(ModelVersion, champion)
        stranger = rows.model_version(session, 1, second.digest, model="other")
        looked = {"look": 1, "level": 0.0125, "level_left": 0.0125}
        assert look_at(session, "femur", manifest).number == 1
        rows.verdict(session, model, None, manifest_digest=manifest)
        assert look_at(session, "femur", manifest).number == 1, "no look was taken"
        rows.verdict(session, model, None, manifest_digest=manifest, **looked)
        rows.verdict(session, stranger, None, manifest_digest=manifest, **looked)
        assert look_at(session, "femur", manifest).number == 2
        assert look_at(session, "femur", same).number == 2
        assert look_at(session, "femur", other).number == 1
