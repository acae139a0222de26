"""The morning page: in Airflow's navigation, as a tab of each run, and its JSON API under /femur/api/v1."""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

PREFIX = "/femur"


async def page(scope: Any, receive: Any, send: Any) -> None:
    """The application, loaded with its first request: every task and DAG parse loads this file."""
    from femur_page.app import app

    await app(scope, receive, send)


class MorningPage(AirflowPlugin):
    """Mounts the page in the api-server and puts it where people look."""

    name = "femur_page"
    fastapi_apps = ({"app": page, "url_prefix": PREFIX, "name": "Femur"},)
    external_views = (
        {"name": "Femur", "href": f"{PREFIX}/", "destination": "nav", "url_route": "femur", "nav_top_level": True},
        {
            "name": "Femur",
            "href": f"{PREFIX}/run?run={{RUN_ID}}",
            "destination": "dag_run",
            "url_route": "femur_run",
        },
    )
