"""Who may see the page and who may act on it: Airflow's own users, by its cookie or a bearer token."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.base_auth_manager import COOKIE_NAME_JWT_TOKEN
from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag, requires_access_view
from fastapi import Depends, HTTPException, Request, status

ROLLBACK = "rollback_champion"

READS = Depends(requires_access_view(AccessView.WEBSITE))
"""Whoever may open Airflow's UI."""


def same_origin(request: Request) -> None:
    """Refuse what another site makes a browser send: a cookie alone proves no will.

    Raises:
        HTTPException: 403 where neither a bearer token nor the page's own origin comes along.
    """
    if "authorization" in request.headers:
        return
    origin = urlsplit(request.headers.get("origin", "")).netloc
    if origin != request.headers.get("host"):
        raise HTTPException(status.HTTP_403_FORBIDDEN, "Expected a request from the page itself. Received: another.")


ACTS = (
    Depends(same_origin),
    Depends(requires_access_dag("POST", DagAccessEntity.RUN, ROLLBACK)),
)
"""Whoever may trigger the DAG that acts."""


def may_act(user: GetUserDep) -> bool:
    """Whether the buttons are shown; the routes ask again."""
    return get_auth_manager().is_authorized_dag(
        method="POST", access_entity=DagAccessEntity.RUN, details=DagDetails(id=ROLLBACK), user=user
    )


MayAct = Annotated[bool, Depends(may_act)]


def token_of(request: Request) -> str:
    """The caller's own token, to act in their name."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    return token if kind.lower() == "bearer" else request.cookies.get(COOKIE_NAME_JWT_TOKEN, "")
