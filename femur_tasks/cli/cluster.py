"""`femur cluster`: what docker-compose.yaml needs beside its images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from femur_tasks.cli.show import err

app = typer.Typer(no_args_is_help=True)
_Folder = Annotated[Path, typer.Argument(help="Folder of the secrets.")]


@app.callback()
def cluster() -> None:
    """Secrets, databases and buckets of the cluster in docker-compose.yaml.

    Examples:

      femur cluster secrets secrets     once, before the first `docker compose up`
    """


@app.command()
def secrets(folder: _Folder = Path("secrets")) -> None:
    """Make the secrets that are missing; those that are there stay.

    A secret is changed by deleting its file, making it anew, and starting the services again.
    """
    from femur_tasks.cluster.secrets import write_secrets

    made = write_secrets(folder)
    err.print(f"{len(made)} secrets made in {folder}" if made else f"every secret is in {folder} already")


@app.command()
def prepare(folder: _Folder = Path("/run/secrets")) -> None:
    """Make logins, databases, tables and buckets; the service airflow-init runs it at every start."""
    from femur_tasks.cluster.prepare import prepare as prepare_all
    from femur_tasks.settings import settings

    prepare_all(folder, settings().s3_endpoint)
    err.print("databases, logins, tables and buckets are there")
