"""What a person can ask of an ingest or a retrain: one model each for the CLI, Airflow's form and the run's record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from femur_tasks.dataset.naming import compiled
from femur_tasks.dataset.problems import LAYOUTS, LIFTABLE, LayoutName
from femur_tasks.errors import FemurError
from femur_tasks.search.experiments import ReproduceBudgetName

Family = Literal["baseline", "unet", "tuned"]
BudgetName = Literal["smoke", "nightly", "full"]
Runtime = Literal["onnx", "keras"]
RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]

__all__ = ["LAYOUTS", "LIFTABLE"]


def _with_group(pattern: str) -> str:
    try:
        compiled(pattern)
    except FemurError as err:
        raise ValueError(err.what) from err
    return pattern


def _liftable(code: str) -> str:
    if code not in LIFTABLE:
        raise ValueError(f"Expected one of {', '.join(LIFTABLE)}. Received: {code}")
    return code


LiftableCode = Annotated[str, AfterValidator(_liftable), WithJsonSchema({"type": "string", "enum": list(LIFTABLE)})]


@dataclass(frozen=True)
class Budget:
    """How much training a run may do.

    Attributes:
        size: training size, px; never above the dataset version's.
        batch_size: cases a step.
        baseline_epochs, unet_epochs: full budget of a fit, also of the search's winner.
        patience: epochs without a better validation Dice before a fit stops early.
        max_epochs, factor: Hyperband's R and its reduction factor.
    """

    size: int
    batch_size: int
    baseline_epochs: int
    unet_epochs: int
    patience: int
    max_epochs: int
    factor: int


BUDGETS: Mapping[str, Budget] = {
    "smoke": Budget(64, 4, baseline_epochs=8, unet_epochs=20, patience=10, max_epochs=3, factor=3),
    "nightly": Budget(256, 16, baseline_epochs=60, unet_epochs=60, patience=15, max_epochs=27, factor=3),
    "full": Budget(256, 16, baseline_epochs=150, unet_epochs=150, patience=40, max_epochs=100, factor=3),
}


_BUDGETS = "; ".join(
    f"{name}: {of.size} px, {of.unet_epochs} epochs of a U-Net, Hyperband to {of.max_epochs}"
    for name, of in BUDGETS.items()
)


class _Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class IngestParameters(_Parameters):
    """What one ingest does; what is left empty is as in the dataset's last version."""

    path: str | None = Field(
        None,
        description="Folder, archive (.zip, .tar, .tar.gz, .tar.zst), s3://bucket/prefix or https:// link to ingest. "
        "Empty: what waits under incoming/.",
    )
    dataset: Name = Field("femur", description="Dataset that the new version belongs to.")
    layout: LayoutName | None = Field(None, description="How the source is laid out. Empty: recognised by content.")
    femur_class: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="Name or number of the femur's class; several with commas. Empty: as before, at first by name.",
    )
    patient_pattern: Annotated[str, AfterValidator(_with_group)] | None = Field(
        None,
        max_length=200,
        description=r"Finds the patient in a file name, such as ^(?P<patient>P\d+)_. Empty: as before, at first as "
        "DICOM says, else each case is a patient.",
    )
    allow: list[LiftableCode] = Field([], description="Errors to lift, by code; recorded with the version.")
    sha256: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")] | None = Field(
        None, description="Digest that an archive or download must have. Empty: any."
    )
    size: int | None = Field(
        None, ge=32, le=1024, multiple_of=8,
        description="Edge of the square training picture, px. Empty: as before, at first 256.",
    )  # fmt: skip
    model: Name | None = Field(None, description="Model that a new version retrains. Empty: as before, at first femur.")
    budget: BudgetName | None = Field(
        None, description="Budget of the retrain that a new version starts. Empty: as before, at first nightly."
    )


class RetrainParameters(_Parameters):
    """What one retrain does."""

    dataset: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}(@[0-9a-f]{4,64})?$")] | None = Field(
        None, description="NAME or NAME@DIGEST. Empty: the dataset whose newest version waits longest for its retrain."
    )
    model: Name | None = Field(
        None, description="Model name. Empty: the one that the dataset retrains, by default femur."
    )
    families: list[Family] = Field(
        ["baseline", "unet", "tuned"], min_length=1, description="Families to train; tuned is the Hyperband search."
    )
    budget: BudgetName | None = Field(
        None, description=f"How much to train ({_BUDGETS}). Empty: the dataset's own, by default nightly."
    )
    size: int | None = Field(None, ge=32, le=1024, multiple_of=8, description="Training size, px. Empty: the budget's.")
    seed: int = Field(0, ge=0, le=2**31 - 2, description="Seed of everything drawn.")
    hours: float | None = Field(None, gt=0, le=168, description="Hours that the run may take. Empty: what it needs.")
    until: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")] | None = Field(
        None, description="Time of day by which it has ended, such as 06:00, in FEMUR_TIMEZONE. Empty: any."
    )
    force: bool = Field(False, description="Retrain although this dataset version was retrained already.")
    require_approval: bool = Field(False, description="Ask a person before a promotion.")


class ReproduceParameters(_Parameters):
    """What one reproduction of the reference's experiments does."""

    dataset: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}(@[0-9a-f]{4,64})?$")] = Field(
        "femur", description="NAME or NAME@DIGEST of the dataset version."
    )
    budget: ReproduceBudgetName = Field("smoke", description="How much to train.")
    size: int | None = Field(None, ge=32, le=1024, multiple_of=8, description="Training size, px. Empty: the budget's.")
    seed: int = Field(0, ge=0, le=2**31 - 2, description="Seed of everything drawn.")


class RollbackParameters(_Parameters):
    """What one rollback does."""

    model: Name = Field("femur", description="Model whose champion steps back.")
    version: int | None = Field(None, ge=1, description="Version to return to. Empty: the champion before.")
    reason: str = Field(min_length=1, max_length=500, description="Why; it goes into the log.")


class PromoteParameters(_Parameters):
    """What one promotion by hand does."""

    version: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*:[1-9][0-9]{0,8}$")] = Field(
        description="The model version, MODEL:VERSION, such as femur:3."
    )
    reason: str = Field(min_length=1, max_length=500, description="Why; it goes into the log.")
    override: bool = Field(False, description="Go against a verdict that refused, or without one; the log says so.")


class PredictParameters(_Parameters):
    """What one prediction does."""

    model: Name = Field("femur", description="Model whose champion predicts.")
    runtime: Runtime = Field("onnx", description="What runs the network; onnx loads no TensorFlow.")


class HousekeepingParameters(_Parameters):
    """What one housekeeping does."""

    keep: int = Field(3, ge=1, description="Newest versions of each family whose files stay.")
    grace_hours: float = Field(24, ge=2, description="What is younger stays: work may be going on.")


def form_fields(parameters: type[_Parameters]) -> dict[str, dict[str, Any]]:
    """The fields of a form that asks for these parameters: default, description and JSON schema of each.

    What may stay empty is written as one type list with null, which form builders understand, instead of `anyOf`.
    """
    fields = {}
    for name, schema in parameters.model_json_schema()["properties"].items():
        variants = schema.pop("anyOf", [])
        for variant in variants:
            schema.update({key: value for key, value in variant.items() if key != "type"})
        if variants:
            schema["type"] = [variant["type"] for variant in variants]
            if "enum" in schema:
                schema["enum"] = [*schema["enum"], None]
        if schema.get("type") == "array":
            schema["examples"] = schema["items"]["enum"]
        fields[name] = {**schema, "title": name.replace("_", " ")}
    return fields
