"""A small registry with a champion, whole in every respect."""

from __future__ import annotations

from pathlib import Path

import pytest

from femur_tasks.parameters import IngestParameters
from femur_tasks.registry.promotion import promote_version
from femur_tasks.steps.context import Context
from femur_tasks.steps.ingest import ingest
from femur_tasks.steps.signatures import sign_stored
from femur_tasks.storage import digest_in
from tests import registry_rows as rows
from tests.radiographs import write_reference


@pytest.fixture
def whole(context: Context, tmp_path: Path) -> Context:
    """A dataset version, two model versions, the first of them champion."""
    digest = ingest(context, IngestParameters(path=str(write_reference(tmp_path / "data")), size=32)).digest
    for version in (1, 2):
        key = context.store.put(f"weights {version}".encode(), "artefacts")
        with context.registry.writing() as session:
            values = {"artefact_key": key, "artefact_sha256": digest_in(key)}
            model_id = rows.model_version(session, version, str(digest), **values).id
        sign_stored(context, model_id)
    with context.registry.writing() as session:
        promote_version(session, "femur", 1, "cli:ann", "first", True, context.now())
    return context
