"""The JSON API: what the page shows, for programs; filters, pages, ETags, and one act."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, FastAPI, Path, Query, Request, Response, status
from fastapi.responses import FileResponse
from fastapi.routing import APIRoute

from femur_page import pages, schemas
from femur_page.access import ACTS, READS
from femur_page.source import Reading
from femur_tasks.errors import NotFound
from femur_tasks.morning import champion, incoming, verdict
from femur_tasks.registry import queries
from femur_tasks.steps import datasets
from femur_tasks.steps.progress import RunProgress, run_progress

PREFIX = "/api/v1"
Limit = Annotated[int, Query(ge=1, le=500)]
Offset = Annotated[int, Query(ge=0, le=10_000_000)]
Number = Annotated[int, Path(ge=1, le=pages.MOST)]
Name = Annotated[str | None, Query(max_length=200)]
T = TypeVar("T")


class Tagged(APIRoute):
    """A route whose answers carry an ETag, and which says 304 to whoever has them already."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of a request."""
        answered = super().get_route_handler()

        async def handler(request: Request) -> Response:
            answer = await answered(request)
            if request.method != "GET" or answer.status_code != status.HTTP_200_OK or isinstance(answer, FileResponse):
                return answer
            tag = f'"{hashlib.sha256(answer.body).hexdigest()[:32]}"'
            answer.headers["ETag"] = tag
            if tag in request.headers.get("if-none-match", ""):
                return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers={"ETag": tag})
            return answer

        return handler


_FAILURES: dict[int | str, dict[str, Any]] = {
    code: {"model": schemas.Failure, "description": words}
    for code, words in ((401, "not logged in"), (403, "not allowed"), (404, "not there"), (503, "registry silent"))
}
router = APIRouter(prefix=PREFIX, dependencies=[READS], route_class=Tagged, responses=_FAILURES)


@router.get("/openapi.json", include_in_schema=False)
def specification(request: Request) -> dict[str, Any]:
    """What this API answers, as OpenAPI."""
    application: FastAPI = request.app
    return application.openapi()


def _page(found: tuple[list[T], int], limit: int, offset: int) -> dict[str, Any]:
    return {"items": found[0], "total": found[1], "limit": limit, "offset": offset}


@router.get("/champions")
def champions(session: Reading) -> list[champion.ChampionFacts]:
    """The champion of every model."""
    facts = (champion.champion_facts(session, model) for model in champion.model_names(session))
    return [found for found in facts if found]


@router.get("/champions/{model}")
def champion_of(session: Reading, model: str) -> champion.ChampionFacts:
    """The champion of one model."""
    found = champion.champion_facts(session, model)
    if found is None:
        raise NotFound(f"Expected a champion of model {model}. Received: none.")
    return found


@router.get("/champions/{model}/history")
def moves(session: Reading, model: str, limit: Limit = 50, offset: Offset = 0) -> schemas.Page[schemas.Move]:
    """Every promotion and rollback of a model, newest first."""
    order = "promotion_id desc"
    found = queries.listed(session, "champion_history", {"model": model}, order, limit, offset)
    return schemas.Page[schemas.Move].model_validate(_page(found, limit, offset))


@router.get("/model-versions")
def versions(
    session: Reading, model: Name = None, family: Name = None, status: Name = None, run_id: Name = None,
    limit: Limit = 50, offset: Offset = 0,
) -> schemas.Page[schemas.Version]:  # fmt: skip
    """Model versions, newest first."""
    wanted = {"model": model, "family": family, "status": status, "run_id": run_id}
    found = queries.listed(session, "model_registry", wanted, "model desc, version desc", limit, offset)
    return schemas.Page[schemas.Version].model_validate(_page(found, limit, offset))


@router.get("/model-versions/{model}/{version}")
def version_in_full(session: Reading, model: str, version: Number) -> schemas.VersionInFull:
    """One model version."""
    return schemas.VersionInFull.model_validate(queries.model_version(session, f"{model}:{version}"))


@router.get(
    "/model-versions/{model}/{version}/files/{kind}",
    responses={200: {"content": {"application/octet-stream": {}, "text/html": {}}}, 409: {"model": schemas.Failure}},
    response_class=FileResponse,
)
def version_file(session: Reading, model: str, version: Number, kind: str) -> FileResponse:
    """Its ONNX file, weights or card: kind is onnx, weights or card."""
    return pages.version_file(session, model, version, kind)


@router.get("/runs")
def runs(session: Reading, model: Name = None, limit: Limit = 50, offset: Offset = 0) -> schemas.Page[schemas.RunRow]:
    """Runs, the last started first."""
    found = queries.runs(session, limit, offset, model), queries.count_runs(session, model)
    return schemas.Page[schemas.RunRow].model_validate(_page(found, limit, offset))


@router.get("/runs/{run_id}/progress")
def progress(session: Reading, run_id: str) -> RunProgress:
    """How far a run is, as `femur runs watch --json` says it."""
    return run_progress(session, run_id)


@router.get("/runs/{run_id}/trials")
def trials(session: Reading, run_id: str, state: Name = None, limit: Limit = 100, offset: Offset = 0) -> schemas.Page[
    schemas.TrialRow
]:  # fmt: skip
    """The trials of a run's searches, best first."""
    order = "score is null, score desc, trial_id"
    found = queries.listed(session, "trial_board", {"run_id": run_id, "state": state}, order, limit, offset)
    return schemas.Page[schemas.TrialRow].model_validate(_page(found, limit, offset))


@router.get("/runs/{run_id}/verdict")
def verdict_of(session: Reading, run_id: str) -> schemas.Verdict:
    """The newest verdict of a run, with every rule, slice and case."""
    found = verdict.verdict_facts(session, run_id)
    compared = found.report.comparison
    if compared is None:
        raise NotFound(f"Expected a run with a verdict. Received: {run_id}.")
    return schemas.Verdict(
        verdict_id=found.verdict_id,
        run_id=run_id,
        model=found.model,
        outcome=compared.verdict.outcome,
        challenger=compared.challenger,
        champion=compared.champion,
        headline=found.headline,
        sentence=found.sentence,
        rules=list(compared.verdict.reasons),
        slices=list(found.slices),
        cases=list(found.cases),
    )


@router.get("/runs/{run_id}/report", response_class=FileResponse, responses={200: {"content": {"text/html": {}}}})
def report(session: Reading, run_id: str) -> FileResponse:
    """The page that a run left."""
    return pages.report(session, run_id)


@router.get("/incoming-nights")
def incoming_nights(
    session: Reading, model: Name = None, limit: Limit = 50, offset: Offset = 0
) -> schemas.Page[incoming.IncomingNight]:
    """Nights of predictions, newest first, with how many pictures have each flag."""
    found = incoming.nights(session, limit, offset, model)
    return schemas.Page[incoming.IncomingNight].model_validate(_page(found, limit, offset))


@router.get("/incoming-nights/{model}/{run_id}")
def incoming_night(session: Reading, model: str, run_id: str) -> schemas.NightInFull:
    """One night of one model, with the drift of the newest pictures against the training data."""
    night = incoming.find_night(session, model, run_id)
    drift, against = incoming.drift_of(session, model, run_id)
    return schemas.NightInFull(night=night, drift=list(drift), drift_against=against)


@router.get("/incoming-pictures")
def incoming_pictures(
    session: Reading, model: Name = None, run_id: Name = None, state: Name = None, flag: Name = None,
    limit: Limit = 50, offset: Offset = 0,
) -> schemas.Page[incoming.Found]:  # fmt: skip
    """Incoming pictures and what was found in them, the last predicted first."""
    found = incoming.pictures(session, limit, offset, model=model, run_id=run_id, state=state, flag=flag)
    return schemas.Page[incoming.Found].model_validate(_page(found, limit, offset))


@router.get("/dataset-versions")
def dataset_versions(
    session: Reading, dataset: Name = None, limit: Limit = 50, offset: Offset = 0
) -> schemas.Page[schemas.DatasetRow]:
    """Dataset versions, newest first."""
    found = datasets.versions(session, dataset, limit, offset), datasets.count_versions(session, dataset)
    return schemas.Page[schemas.DatasetRow].model_validate(_page(found, limit, offset))


@router.get("/dataset-versions/{name}")
def dataset_version(session: Reading, name: str) -> dict[str, Any]:
    """One version, `NAME` or `NAME@DIGEST`, with problems, drift, withdrawals and ingests."""
    return datasets.version_in_full(session, name)


@router.get("/dataset-versions/{before}/diff/{after}")
def diff(session: Reading, before: str, after: str) -> dict[str, Any]:
    """What differs between two versions."""
    return datasets.compare(session, before, after)


@router.post("/rollbacks", status_code=status.HTTP_202_ACCEPTED, dependencies=list(ACTS))
def roll_back(request: Request, asked: schemas.RollbackAsked) -> schemas.RollbackStarted:
    """Start the DAG that puts a former champion back, in the caller's own name."""
    run_id = pages.start_rollback(request, asked.model, asked.reason, asked.version)
    return schemas.RollbackStarted(run_id=run_id)
