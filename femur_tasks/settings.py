"""The one reader of environment variables."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from pydantic_settings import PydanticBaseSettingsSource as Source

from femur_tasks.messages import KINDS, Kind

CHECKOUT = Path(__file__).resolve().parents[1]


def _known_timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as err:
        raise ValueError(f"Expected an IANA time zone such as Europe/Zurich. Received: {name}") from err
    return name


def _long_enough(key: SecretStr) -> SecretStr:
    if 0 < len(key.get_secret_value()) < 32:
        raise ValueError("Expected 32 characters or more, such as `openssl rand -hex 32` prints. Received: fewer")
    return key


def _words(value: Any) -> Any:
    return [word for word in re.split(r"[\s,]+", value) if word] if isinstance(value, str) else value


class _Home(BaseSettings):
    """Where state lives; read first, because the embedded stack's own settings lie in there."""

    model_config = SettingsConfigDict(
        env_prefix="FEMUR_", env_file=CHECKOUT / ".env", extra="ignore", hide_input_in_errors=True
    )

    home: Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())] = Field(
        CHECKOUT / ".femur", description="Folder of all local state: databases, logs, secrets, object store."
    )


class Settings(_Home):
    """Every setting, `FEMUR_<NAME>` in the environment or in the checkout's `.env`.

    The embedded stack writes its ports and generated credentials to `stack.env` in `home`;
    `.env` goes before it, and the environment before both.
    """

    registry_url: str = Field("", description="SQLAlchemy URL of the registry. Empty: SQLite in FEMUR_HOME.")
    s3_endpoint: str = Field("", description="host:port of the object store. Empty: no store known yet.")
    s3_access_key: str = Field("", description="Access key of the object store.")
    s3_secret_key: SecretStr = Field(SecretStr(""), description="Secret key of the object store.")
    s3_bucket: str = Field("femur", description="Bucket that holds every object of this installation.")
    s3_secure: bool = Field(False, description="Whether to speak TLS with the object store.")
    work: Annotated[Path | None, AfterValidator(lambda path: path and path.expanduser().absolute())] = Field(
        None, description="Folder in which ingests work, seen by every worker that ingests. Empty: in FEMUR_HOME."
    )
    patient_key: Annotated[SecretStr, AfterValidator(_long_enough)] = Field(
        SecretStr(""), description="Key of patients' pseudonyms, 32 characters or more. Empty: generated in FEMUR_HOME."
    )
    signing_key: Annotated[Path | None, AfterValidator(lambda path: path and path.expanduser().absolute())] = Field(
        None, description="File of the key that signs model versions. Empty: generated in FEMUR_HOME."
    )
    airflow_url: str = Field("", description="Where Airflow's UI and REST API answer.")
    airflow_login_file: Path | None = Field(
        None,
        description="File with the address at which workers reach Airflow, and in it user and password of who writes "
        "notes beside runs: http://USER:PASSWORD@HOST:PORT. Empty: the embedded stack's admin.",
    )
    users: dict[str, Literal["viewer", "user", "op", "admin"]] = Field(
        {},
        description='Airflow logins beside admin with their roles, such as {"anna": "op", "bert": "viewer"}; viewers '
        "look, ops also trigger and roll back. Passwords are generated.",
    )
    timezone: Annotated[str, AfterValidator(_known_timezone)] = Field(
        "UTC", description="Time zone of the nightly schedules."
    )
    ingest_cron: str = Field("0 1 * * *", description="When the nightly ingest looks under incoming/.")
    retrain_cron: str = Field("0 2 * * *", description="When the nightly retrain starts.")
    predict_cron: str = Field("30 0 * * *", description="When the nightly prediction looks under incoming-images/.")
    retrain_until: Annotated[str, Field(pattern=r"^(([01]\d|2[0-3]):[0-5]\d)?$")] = Field(
        "",
        description="Time of day by which a retrain that nobody starts by hand has ended, such as 06:00. Empty: none.",
    )
    search_workers: int = Field(2, ge=1, le=64, description="Search workers that a retrain maps.")
    mixed_precision: bool = Field(
        False, description="Whether the search trains in bfloat16 where the processor computes in it."
    )
    judge_queue: str = Field(
        "default", min_length=1, description="Celery queue on which models are judged and promoted."
    )
    gpu_slots: int = Field(2, ge=1, description="Slots of the pool `gpu`: training tasks that run side by side.")
    lease_s: int = Field(60, ge=5, description="Seconds after which a silent worker loses its trial.")
    task_heartbeat_s: int = Field(30, ge=10, description="Seconds after which Airflow calls a silent task dead.")
    notify_urls: SecretStr = Field(
        SecretStr(""), description="Apprise URLs that messages go to, separated by spaces or commas. Empty: nobody."
    )
    notify_on: Annotated[tuple[Kind, ...], NoDecode, BeforeValidator(_words)] = Field(
        KINDS, description="Kinds of messages that are sent."
    )
    no_news_nights: int = Field(3, ge=1, description="Nights without a verdict after which a message says so.")
    watch_cron: str = Field("30 7 * * *", description="When the morning's look sends what is due.")
    log_format: Literal["console", "json"] = Field("console", description="How the CLI and its processes log.")
    policy: Path = Field(
        CHECKOUT / "femur_tasks" / "registry" / "policy.yaml", description="The gate's policy, a YAML file."
    )

    @property
    def database_url(self) -> str:
        """URL of the registry database, the embedded SQLite file where none is set."""
        return self.registry_url or f"sqlite:///{self.home / 'registry.db'}"

    @property
    def notify_places(self) -> list[str]:
        """The URLs of `notify_urls`, one by one; they hold passwords, and commas of their own."""
        return [url for url in re.split(r",?\s+|,(?=[\w+-]+://)", self.notify_urls.get_secret_value()) if url]

    @property
    def signing_key_file(self) -> Path:
        """The key that signs model versions."""
        return self.signing_key or self.home / "signing.key"

    @property
    def cache_folder(self) -> Path:
        """What can be made again at any time."""
        return self.home / "cache"

    @property
    def work_folder(self) -> Path:
        """Where ingests work."""
        return self.work or self.home / "work"


@lru_cache
def settings() -> Settings:
    """The effective settings of this process, read once."""
    home = _Home().home
    return Settings(home=home, _env_file=(home / "stack.env", CHECKOUT / ".env"))


class _Elsewhere(Settings):
    """Settings of which a file alone speaks."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: Source,
        env_settings: Source,
        dotenv_settings: Source,
        file_secret_settings: Source,
    ) -> tuple[Source, ...]:
        return (dotenv_settings,)


def settings_in(file: Path) -> Settings:
    """The settings of another installation, as a file like `stack.env` says; this process' environment counts nothing.

    Where the file names no FEMUR_HOME, it is the folder in which the file lies.
    """
    found = _Elsewhere(_env_file=file)
    return found if "home" in found.model_fields_set else found.model_copy(update={"home": file.absolute().parent})
