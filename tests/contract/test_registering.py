"""Model versions become visible whole, with a number of their own, and only if their artefact is what was fitted."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import select

from femur_tasks.errors import DigestMismatch
from femur_tasks.parameters import RetrainParameters
from femur_tasks.registry.database import Registry
from femur_tasks.registry.tables import ModelVersion
from femur_tasks.steps import train
from femur_tasks.steps.context import Context
from femur_tasks.training.hyperparameters import REFERENCE_UNET
from tests import registry_rows as rows

PROBES = np.full((2, 4, 4), 0.5, np.float32)
FITTED = train._Fitted(REFERENCE_UNET, f"artefacts/{'a' * 64}", 10, 3, 0.9, PROBES)


def test_fits_that_end_at_once_get_numbers_of_their_own(context: Context, registry: Registry) -> None:
    context = replace(context, registry=registry)
    families = [f"family-{n}" for n in range(8)]
    with registry.writing() as session:
        digest = rows.dataset_version(session).digest
        run = rows.run(session, "run-1", digest)
        run.parameters = RetrainParameters(budget="smoke").model_dump()

    def register(family: str) -> int:
        return train._registered(context, "run-1", family, FITTED, f"onnx/{'b' * 64}").version

    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(register, families))
    assert sorted(versions) == list(range(1, 9))
    with registry.reading() as session:
        assert set(session.scalars(select(ModelVersion.family))) == set(families)


@pytest.mark.parametrize("off", [2e-5, -2e-5, math.nan], ids=str)
def test_artefact_that_predicts_otherwise_than_its_fit_is_refused(off: float) -> None:
    train._check(FITTED, PROBES + np.float32(5e-6))
    found = PROBES.copy()
    found[1, 2, 3] += off
    with pytest.raises(DigestMismatch, match="predict as the trained one"):
        train._check(FITTED, found)
