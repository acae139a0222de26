"""The application that Airflow's api-server mounts: tabs, JSON API, files, and an answer in words to every failure."""

from __future__ import annotations

import gc
import logging
import secrets
from pathlib import Path

import plotly
from fastapi import FastAPI, HTTPException, Request, status
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as RoutingException
from starlette.middleware.base import RequestResponseEndpoint

from femur_page import api, pages
from femur_tasks.errors import FemurError, NotFound, Unreachable

log = logging.getLogger(__name__)
_HERE = Path(__file__).parent
_PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
_FOREVER = {"Cache-Control": "public, max-age=31536000, immutable"}
_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
    "frame-ancestors 'self'; base-uri 'none'; form-action 'self'; object-src 'none'"
)
_TITLES = {401: "Log in first", 403: "Not for this login", 404: "Not there", 422: "Not understood", 503: "No answer"}

app = FastAPI(
    title="Femur model registry",
    description="Champions, verdicts, model versions, runs and datasets, for those who may open Airflow.",
    version="1",
    openapi_url=None,
    docs_url=None,
    redoc_url=None,
)
app.include_router(pages.router)
app.include_router(api.router)
app.mount("/static", StaticFiles(directory=_HERE / "static"))


@app.get("/plotly.js", include_in_schema=False)
def plotly_script() -> FileResponse:
    """The charts' library, as its package ships it; nothing of ours is in it."""
    return FileResponse(_PLOTLY, media_type="text/javascript", headers=_FOREVER)


@app.middleware("http")
async def secured(request: Request, call_next: RequestResponseEndpoint) -> Response:
    """What every answer carries: nothing from elsewhere runs in a page, and no other site frames it."""
    if b"%00" in request.scope["raw_path"] + request.scope["query_string"]:  # PostgreSQL knows no such text
        answer: Response = _told(request, 422, "Expected text. Received: a null byte in it.")
    else:
        answer = await call_next(request)
    for name, value in (("Content-Security-Policy", _POLICY), ("X-Content-Type-Options", "nosniff"),
                        ("Referrer-Policy", "same-origin"), ("Cache-Control", "no-cache")):  # fmt: skip
        answer.headers.setdefault(name, value)
    return answer


@app.exception_handler(FemurError)
async def refused(request: Request, err: FemurError) -> Response:
    """What the library refuses, in its own words."""
    kinds = ((NotFound, status.HTTP_404_NOT_FOUND), (Unreachable, status.HTTP_503_SERVICE_UNAVAILABLE))
    code = next((code for kind, code in kinds if isinstance(err, kind)), status.HTTP_409_CONFLICT)
    return _told(request, code, err.what, err.todo)


@app.exception_handler(RoutingException)
async def declined(request: Request, err: HTTPException) -> Response:
    """What the routes and Airflow's own checks refuse."""
    todo = "Log in to Airflow, then come back." if err.status_code == status.HTTP_401_UNAUTHORIZED else ""
    return _told(request, err.status_code, str(err.detail), todo)


@app.exception_handler(RequestValidationError)
async def misunderstood(request: Request, err: RequestValidationError) -> Response:
    """A question that does not have the form of one."""
    found = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in err.errors())
    return _told(request, status.HTTP_422_UNPROCESSABLE_CONTENT, f"Expected another question. Received: {found}.")


@app.exception_handler(Exception)
async def broke(request: Request, err: Exception) -> Response:
    """A defect of ours: the log has the traceback, the browser its number."""
    number = secrets.token_hex(4)
    log.error("defect %s at %s", number, request.url.path, exc_info=err)
    return _told(request, 500, f"Something broke that should not. Number {number} in the api-server's log says what.")


def _told(request: Request, code: int, what: str, todo: str = "") -> Response:
    if api.PREFIX in request.url.path:
        return JSONResponse({"detail": what, "todo": todo}, code)
    root = request.scope["root_path"]
    if code == status.HTTP_405_METHOD_NOT_ALLOWED:
        return RedirectResponse(f"{root}/", status.HTTP_303_SEE_OTHER)
    title = _TITLES.get(code, "Not possible")
    return pages.shown("error.html", code, root=root, models=[], model="", tab="", title=title, what=what, todo=todo)


# the server is loaded by now: each full collection would look at all of it, 0.3 s in the middle of a request
gc.collect()
gc.freeze()
