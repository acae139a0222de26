"""The registry's tables: a supported API, queried with SQL by people.

Times are UTC. Keys in the object store are `kind/<sha256>`. JSON columns hold small objects.
"""

from femur_tasks.registry.tables.base import Base
from femur_tasks.registry.tables.datasets import (
    Dataset,
    DatasetCase,
    DatasetDrift,
    DatasetSheet,
    DatasetVersion,
    IncomingObject,
    Ingest,
    Withdrawal,
)
from femur_tasks.registry.tables.experiments import ExperimentFit, ExperimentRow
from femur_tasks.registry.tables.models import (
    CollectedVersion,
    ComparisonManifest,
    Evaluation,
    EvaluationCase,
    ModelCard,
    ModelVersion,
)
from femur_tasks.registry.tables.notifications import Notification
from femur_tasks.registry.tables.predictions import IncomingPicture, PredictionDrift, PredictionRate, PredictionRun
from femur_tasks.registry.tables.runs import Fit, FitEpoch, Run
from femur_tasks.registry.tables.searches import OPEN_TRIAL, UNTOLD_TRIAL, Search, Trial, TrialEpoch
from femur_tasks.registry.tables.signatures import Signature, SigningKey
from femur_tasks.registry.tables.verdicts import Champion, Promotion, VerdictPicture, VerdictReason, VerdictRow

__all__ = [
    "OPEN_TRIAL",
    "UNTOLD_TRIAL",
    "Base",
    "Champion",
    "CollectedVersion",
    "ComparisonManifest",
    "Dataset",
    "DatasetCase",
    "DatasetDrift",
    "DatasetSheet",
    "DatasetVersion",
    "Evaluation",
    "EvaluationCase",
    "ExperimentFit",
    "ExperimentRow",
    "Fit",
    "FitEpoch",
    "IncomingObject",
    "IncomingPicture",
    "Ingest",
    "ModelCard",
    "ModelVersion",
    "Notification",
    "PredictionDrift",
    "PredictionRate",
    "PredictionRun",
    "Promotion",
    "Run",
    "Search",
    "Signature",
    "SigningKey",
    "Trial",
    "TrialEpoch",
    "VerdictPicture",
    "VerdictReason",
    "VerdictRow",
    "Withdrawal",
]
