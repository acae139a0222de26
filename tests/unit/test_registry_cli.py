"""`femur promote`, `femur keys`, `femur verify`, `femur registry champion --at`: what they do, say, and end with."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from femur_tasks import cli
from femur_tasks.cli import show
from femur_tasks.dataset.manifest import Manifest
from femur_tasks.registry.database import Registry
from femur_tasks.registry.tables import ComparisonManifest, DatasetVersion, ModelCard, ModelVersion, Promotion
from femur_tasks.settings import settings
from femur_tasks.steps.context import open_context
from femur_tasks.steps.signatures import sign_stored
from femur_tasks.storage import MemoryStore, digest_in
from tests import registry_rows as rows

Femur = Callable[..., int]


@pytest.fixture
def registry(tmp_path: Path, migrated_sqlite: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """The registry of a home that the CLI works in, with versions 1 and 2, both signed; the gate refused the second."""
    monkeypatch.setenv("FEMUR_HOME", str(tmp_path))
    settings.cache_clear()
    store = MemoryStore()
    monkeypatch.setattr("femur_tasks.steps.context.open_store", lambda _: store)
    shutil.copy(migrated_sqlite, tmp_path / "registry.db")
    found = Registry(settings().database_url)
    for version, outcome in ((1, "promote"), (2, "refuse")):
        key = store.put(b"weights %d" % version, "artefacts")
        with found.writing() as session:
            digest = rows.dataset_version(session, f"v{version}").digest
            values = {"artefact_key": key, "artefact_sha256": digest_in(key)}
            model = rows.model_version(session, version, digest, **values)
            rows.verdict(session, model, None, outcome)
        sign_stored(open_context(), model.id)
    yield found
    settings.cache_clear()


@pytest.fixture
def femur(monkeypatch: pytest.MonkeyPatch) -> Femur:
    for console in (show.out, show.err):
        monkeypatch.setattr(console, "width", 200)

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["femur", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    return run


def log(registry: Registry) -> list[tuple[str, str]]:
    with registry.reading() as session:
        return [(row.kind, row.reason) for row in session.scalars(select(Promotion).order_by(Promotion.id))]


def test_promotion_by_hand(femur: Femur, registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    assert femur("promote", "femur:1", "--reason", "reviewed") == 0
    assert "champion is femur:1, before none" in capsys.readouterr().err
    assert femur("promote", "femur:2", "--reason", "better, I think") == 2
    assert "--override" in capsys.readouterr().err
    assert femur("promote", "femur:2", "--override", "--reason", "ticket 12") == 0
    assert "champion is femur:2 by an override, before femur:1" in capsys.readouterr().err
    assert log(registry) == [("promote", "reviewed"), ("override", "ticket 12")]


@pytest.mark.parametrize("version", ["femur", "femur:0", "femur:x", "Femur:1", ":1"])
def test_what_is_no_model_version_is_refused(femur: Femur, registry: Registry, version: str) -> None:
    assert femur("promote", version, "--reason", "r") == 1
    assert log(registry) == []


def test_champion_at_a_time(femur: Femur, registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    femur("promote", "femur:1", "--reason", "reviewed")
    with registry.reading() as session:
        since = session.scalars(select(Promotion.at)).one()
    capsys.readouterr()
    for hours, version in ((-1, None), (1, 1)):
        at = (since + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%S")
        assert femur("registry", "champion", "--at", at, "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert [row["version"] for row in found] == ([version] if version else [])


def test_keys_are_listed_rotated_and_revoked(
    femur: Femur, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    def keys() -> list[tuple[bool, int]]:
        assert femur("keys", "list", "--json") == 0
        return [(row["revoked_at"] is None, row["signatures"]) for row in json.loads(capsys.readouterr().out)]

    assert keys() == [(True, 2)]
    assert femur("keys", "rotate", "--revoke") == 0
    assert "2 model versions signed again" in capsys.readouterr().err
    assert keys() == [(False, 2), (True, 2)]
    assert femur("keys", "list") == 0
    assert "in use" in capsys.readouterr().out


def test_audit_ends_with_2_and_names_what_is_wrong(
    femur: Femur, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    assert femur("verify") == 2  # these dataset versions name a manifest that is not there
    told = capsys.readouterr()
    assert "missing_object" in told.out
    assert "manifests/none" in told.err
    assert femur("verify", "--json") == 2
    assert [one["code"] for one in json.loads(capsys.readouterr().out)["findings"]] == ["missing_object"]


@pytest.mark.parametrize(("kind", "expected"), [("weights", b"weights 1"), ("card", b"<p>card</p>")])
def test_download_writes_what_was_signed(
    registry: Registry, femur: Femur, tmp_path: Path, kind: str, expected: bytes
) -> None:
    key = open_context().store.put(b"<p>card</p>", "cards")
    with registry.writing() as session:
        session.add(ModelCard(model_version_id=1, html_key=key, json_key=key, created_at=rows.NOON))
    out = tmp_path / "out"
    assert femur("registry", "download", "femur:1", "--format", kind, "--out", str(out)) == 0
    assert out.read_bytes() == expected


def test_download_of_what_is_not_there_says_so(
    registry: Registry, femur: Femur, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, said in (("femur:1", "no such file"), ("femur:9", "Expected MODEL:VERSION"), ("femur", "Expected MODEL")):
        assert femur("registry", "download", name, "--out", str(tmp_path / "out")) == 1
        told = capsys.readouterr().err
        assert said in told or "Received: none" in told
    assert not (tmp_path / "out").exists()


def test_leaderboard_shows_the_newest_cases_best_first(
    registry: Registry, femur: Femur, capsys: pytest.CaptureFixture[str]
) -> None:
    with registry.writing() as session:
        for number, dice in ((1, 0.8), (2, 0.9)):
            model = session.get_one(ModelVersion, number)
            rows.evaluation(session, model, rows.digest_of("comparison"), mean_dice=dice)
            rows.evaluation(session, model, "other cases", mean_dice=1.0)
        session.add(
            ComparisonManifest(
                digest="the same again", dataset_digest=model.dataset_digest, cases=[], excluded=[],
                cases_digest=rows.digest_of("comparison"), frozen_at=rows.NOON,
            )
        )  # fmt: skip
        rows.evaluation(session, model, "the same again", mean_dice=0.9)
        rows.evaluation(session, session.get_one(ModelVersion, 1), "the same again", mean_dice=1.0, metric="m-0")
    assert femur("registry", "leaderboard", "--json") == 0
    found = [(row["place"], row["version"], row["test_dice"]) for row in json.loads(capsys.readouterr().out)]
    assert found == [(1, 2, 0.9), (2, 1, 0.8)]


def test_gc_says_what_would_go_and_then_does_it(
    registry: Registry, femur: Femur, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_context().store
    assert isinstance(store, MemoryStore)
    manifest = store.put(Manifest("femur", 32, (), (), {}).to_json(), "manifests")
    with registry.writing() as session:
        session.execute(update(DatasetVersion).values(manifest_key=manifest))
    loose = store.put(b"nobody's", "raw")
    store._times[loose] = rows.NOON
    assert femur("gc", "--dry-run", "--json") == 0
    planned = json.loads(capsys.readouterr().out)
    assert ([one["key"] for one in planned["objects"]], planned["bytes"]) == ([loose], 8)
    assert store.stat(loose) is not None
    for number in range(9):
        store._times[store.put(b"nobody's %d" % number, "raw")] = rows.NOON
    assert femur("gc") == 1, "more than half of what is there"
    assert "--force" in capsys.readouterr().err
    assert femur("gc", "--force") == 0
    assert "raw" in capsys.readouterr().out
    assert store.stat(loose) is None
