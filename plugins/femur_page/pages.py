"""The page's tabs, rendered here: champion, tonight, verdict, history, incoming, datasets, search."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path as File
from typing import Annotated, Any

import httpx
from airflow.configuration import conf
from fastapi import APIRouter, Form, HTTPException, Path, Query, Request, status
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from sqlalchemy.orm import Session

from femur_page import figures, incoming_figures, schemas
from femur_page.access import ACTS, READS, ROLLBACK, MayAct, token_of
from femur_page.source import Reading, sent
from femur_tasks.errors import NotFound
from femur_tasks.morning import champion, history, incoming, night, search, verdict
from femur_tasks.parameters import Name
from femur_tasks.registry import metrics, queries
from femur_tasks.registry.tables import Run
from femur_tasks.reports import page as written
from femur_tasks.serving.findings import FLAGS
from femur_tasks.steps import datasets
from femur_tasks.steps.signatures import stored_file

router = APIRouter(dependencies=[READS], default_response_class=HTMLResponse, include_in_schema=False)
Model = Annotated[str | None, Query()]
RunId = Annotated[str | None, Query(alias="run")]
MOST = 2_000_000_000
"""A number beyond the databases' integers is none that anything has."""

_TEMPLATES = Environment(
    loader=FileSystemLoader(File(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {"value": written.value, "moment": written.moment, "dice": written.dice}
_TEMPLATES.globals |= {"figures": figures, "incoming_figures": incoming_figures, "flags": FLAGS}
_TABS = ("champion", "tonight", "verdict", "history", "incoming", "datasets", "search")
_PLOT = {"template": "none", "margin": {"l": 60, "r": 20, "t": 20, "b": 50}, "hoverlabel": {"align": "left"}}


def shown(template: str, status_code: int = 200, **facts: Any) -> HTMLResponse:
    """A page of a template."""
    return HTMLResponse(_TEMPLATES.get_template(template).render(tabs=_TABS, **facts), status_code)


def plot(drawn: Any) -> str:
    """A figure for the page's script to draw; what it holds can't end the element that it stands in."""
    return str(drawn.update_layout(_PLOT).to_json()).replace("<", "\\u003c")


def figure(of: float | None) -> str:
    """A number with as many digits as people compare."""
    if of is None:
        return written.NOTHING
    return f"{of:,.0f}" if abs(of) >= 1000 else f"{of:.4g}"


_TEMPLATES.filters |= {"plot": plot, "figure": figure}


def _chosen(session: Session, model: str | None) -> tuple[list[str], str]:
    models = champion.model_names(session)
    if model is not None and model not in models and not queries.runs(session, 1, model=model):
        raise NotFound(f"Expected a model. Received: {model}.", f"There are: {', '.join(models) or 'none yet'}.")
    return models, model or (models[0] if models else "femur")


def _common(request: Request, session: Session, model: str | None, tab: str) -> dict[str, Any]:
    models, name = _chosen(session, model)
    return {"root": request.scope["root_path"], "models": models, "model": name, "tab": tab}


@router.get("/")
def champion_tab(
    request: Request, session: Reading, may_act: MayAct, model: Model = None, started: str | None = None
) -> Response:
    """Who is champion, and the button that puts the former one back."""
    common = _common(request, session, model, "champion")
    found = champion.champion_facts(session, common["model"])
    last = night.newest_run(session, common["model"])
    newest = queries.runs(session, 1, run_id=last)[0] if last else None
    return shown("champion.html", **common, champion=found, last=newest, may_act=may_act, started=started)


@router.get("/tonight")
def tonight_tab(request: Request, session: Reading, model: Model = None, run: RunId = None) -> Response:
    """The newest run, or one that is named, as it goes."""
    if run is not None:
        model = queries.find_run(session, run).model
    common = _common(request, session, model, "tonight")
    run = run or night.newest_run(session, common["model"])
    recent = queries.runs(session, 15, model=common["model"])
    return shown("tonight.html", **common, night=night.night(session, run) if run else None, recent=recent)


@router.get("/tonight/live")
def live(request: Request, session: Reading, run: Annotated[str, Query()]) -> Response:
    """The part of that tab that refreshes by itself."""
    found = night.night(session, run)
    return shown("live.html", root=request.scope["root_path"], night=found)


@router.get("/run")
def run_tab(request: Request, session: Reading, run: RunId = None) -> Response:
    """What Airflow shows as a tab of one of its runs."""
    row = session.get(Run, run or "")
    if row is None:
        common = _common(request, session, None, "")
        return shown("elsewhere.html", **common, run=run)
    if queries.newest_verdict(session, row.run_id) is None:
        return tonight_tab(request, session, row.model, row.run_id)
    return verdict_tab(request, session, row.model, row.run_id)


@router.get("/verdict")
def verdict_tab(request: Request, session: Reading, model: Model = None, run: RunId = None) -> Response:
    """Every rule of the gate, and what it stands on."""
    if run is not None:
        model = queries.find_run(session, run).model
    common = _common(request, session, model, "verdict")
    run = run or verdict.newest_of(session, common["model"])
    found = verdict.verdict_facts(session, run) if run else None
    return shown("verdict.html", **common, found=found)


@router.get("/history")
def history_tab(
    request: Request, session: Reading, model: Model = None, before: Annotated[int | None, Query(ge=0, le=MOST)] = None
) -> Response:
    """The model over the nights."""
    common = _common(request, session, model, "history")
    past = history.history(session, common["model"], before)
    return shown("history.html", **common, past=past, before=before)


@router.get("/incoming")
def incoming_tab(request: Request, session: Reading, model: Model = None, night: str | None = None) -> Response:
    """What was predicted at night, and what a person should look at."""
    common = _common(request, session, model, "incoming")
    found = incoming.incoming(session, common["model"], night)
    return shown("incoming.html", **common, found=found)


@router.get("/datasets")
def datasets_tab(
    request: Request, session: Reading, model: Model = None, version: str | None = None,
    before: str | None = None, after: str | None = None,
) -> Response:  # fmt: skip
    """Dataset versions, one of them in full, and what differs between two."""
    common = _common(request, session, model, "datasets")
    there = datasets.versions(session, limit=100)
    chosen = version or (f"{there[0]['dataset']}@{there[0]['digest']}" if there else None)
    return shown(
        "datasets.html",
        **common,
        versions=there,
        chosen=datasets.version_in_full(session, chosen) if chosen else None,
        ingests=datasets.ingests(session, limit=20),
        diff=datasets.compare(session, before, after) if before and after else None,
        before=before,
        after=after,
    )


@router.get("/search")
def search_tab(
    request: Request, session: Reading, model: Model = None, run: RunId = None, name: str | None = None
) -> Response:
    """The trials of a run's search."""
    if run is not None:
        model = queries.find_run(session, run).model
    common = _common(request, session, model, "search")
    run = run or search.newest_search(session, common["model"])
    found = search.search_facts(session, run, name) if run else None
    return shown("search.html", **common, found=found)


@router.post("/rollback", dependencies=list(ACTS))
def roll_back(request: Request, model: Annotated[Name, Form()], reason: Annotated[schemas.Reason, Form()]) -> Response:
    """Start the DAG that puts the former champion back, in the caller's own name."""
    run_id = start_rollback(request, model, reason)
    where = httpx.URL(f"{request.scope['root_path']}/", params={"model": model, "started": run_id})
    return RedirectResponse(str(where), status.HTTP_303_SEE_OTHER)


def start_rollback(request: Request, model: str, reason: str, version: int | None = None) -> str:
    """Trigger the DAG through Airflow's REST API with the caller's token; returns the run's id.

    Raises:
        HTTPException: Airflow's own answer where it refuses, 502 where it does not answer.
    """
    url = httpx.URL(f"{conf.get('api', 'base_url').rstrip('/')}/api/v2/dags/{ROLLBACK}/dagRuns")
    host, port = request.scope["server"]  # this very server; base_url is how people reach it, perhaps through a proxy
    if port and not conf.get("api", "ssl_cert"):
        url = url.copy_with(scheme="http", host=host, port=port)
    body = {"logical_date": None, "conf": {"model": model, "reason": reason, "version": version}}
    headers = {"Authorization": f"Bearer {token_of(request)}"}
    try:
        answer = httpx.post(url, json=body, headers=headers, timeout=30, trust_env=False)
    except httpx.HTTPError as err:
        raise HTTPException(status.HTTP_502_BAD_GATEWAY, f"Airflow's REST API does not answer: {err}") from err
    if answer.is_error:
        is_json = answer.headers.get("content-type", "").startswith("application/json")
        why = answer.json().get("detail") if is_json else ""
        raise HTTPException(answer.status_code, str(why or "Airflow refused to start the rollback"))
    return str(answer.json()["dag_run_id"])


@router.get("/files/{model}/{version}/{kind}")
def version_file(session: Reading, model: str, version: Annotated[int, Path(ge=1, le=MOST)], kind: str) -> FileResponse:
    """A model version's ONNX file, weights or card, proven by signature and digest."""
    key = stored_file(session, f"{model}:{version}", kind)
    if kind == "card":
        return sent(key, "text/html")
    return sent(key, "application/octet-stream", f"{model}-{version}.{'onnx' if kind == 'onnx' else 'femur'}")


@router.get("/report")
def report(session: Reading, run: Annotated[str, Query()]) -> FileResponse:
    """The page that a run left."""
    key = queries.find_run(session, run).report_key
    if key is None:
        raise NotFound(f"Expected a run with a report. Received: {run}, which has none yet.")
    return sent(key, "text/html")


@router.get("/ingest-report")
def ingest_report(session: Reading, ingest: Annotated[str, Query()]) -> FileResponse:
    """The page that an ingest left, with its contact sheets."""
    return sent(datasets.find_ingest(session, ingest).report_key, "text/html")


@router.get("/sheet")
def sheet(session: Reading, version: str, position: Annotated[int, Query(ge=0, le=1000)]) -> FileResponse:
    """A contact sheet of the dataset version with this digest."""
    return sent(datasets.sheet_key(session, version, position), "image/jpeg")


@router.get("/metrics")
def exposition(session: Reading) -> Response:
    """The registry for Prometheus, whose scrape brings the bearer token of somebody who may look."""
    return Response(metrics.exposition(session, datetime.now(UTC)), media_type=metrics.CONTENT_TYPE)


@router.get("/picture")
def picture(
    session: Reading, of: Annotated[int, Query(alias="verdict", ge=1, le=MOST)], case: str, whose: str
) -> FileResponse:
    """An overlay of one of a verdict's worst cases."""
    return sent(verdict.picture_key(session, of, case, whose), "image/png")


@router.get("/incoming-picture")
def incoming_picture(session: Reading, key: str, etag: str) -> FileResponse:
    """The overlay of an incoming picture, by the name that the registry knows it by."""
    return sent(incoming.overlay_key(session, key, etag), "image/png")
