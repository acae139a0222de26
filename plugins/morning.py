"""The morning page: in Airflow's navigation, as a tab of each run, and its JSON API under /femur/api/v1."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin
from femur_page.app import app

PREFIX = "/femur"


class MorningPage(AirflowPlugin):
    """Mounts the page in the api-server and puts it where people look."""

    name = "femur_page"
    fastapi_apps = ({"app": app, "url_prefix": PREFIX, "name": "Femur"},)
    external_views = (
        {"name": "Femur", "href": f"{PREFIX}/", "destination": "nav", "url_route": "femur", "nav_top_level": True},
        {
            "name": "Femur",
            "href": f"{PREFIX}/run?run={{RUN_ID}}",
            "destination": "dag_run",
            "url_route": "femur_run",
        },
    )
