"""What all reports share: one template with its colours, and how values are written. A page needs nothing beside it."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

NOTHING: Final = "\u2013"


def render(template: str, **shown: Any) -> str:
    """The page that a template of this folder makes of what is shown, as text that UTF-8 can hold.

    Args:
        shown: what the template names; `page.html` itself asks for `headline`, `name`, `state` and `tone`, the last
            one of `good`, `bad` and `calm`.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"value": value, "moment": moment, "dice": dice, "data_uri": _data_uri}
    # names of files may hold bytes that were never text
    return environment.get_template(template).render(**shown).encode(errors="replace").decode()


def dice(score: float | None) -> str:
    """A score with as many digits as tell two models apart."""
    return NOTHING if score is None else f"{score:.4f}"


def value(of: Any) -> str:
    """A parameter as people write it."""
    if of is None or of == "":
        return NOTHING
    if isinstance(of, bool):
        return "yes" if of else "no"
    if isinstance(of, list | tuple):
        return ", ".join(value(item) for item in of)
    return f"{of:.3g}" if isinstance(of, float) else str(of)


def moment(at: datetime | None) -> str:
    """A time of day to the minute."""
    return f"{at.astimezone(UTC):%d %B %Y, %H:%M} UTC".lstrip("0") if at else NOTHING


def period(started_at: datetime, finished_at: datetime | None) -> str:
    """From when to when; the day once where start and end share it."""
    start, end = moment(started_at), moment(finished_at)
    if finished_at is None:
        return f"Since {start}"
    day, _, _ = start.partition(",")
    return start if start == end else f"{start.removesuffix(' UTC')} to {end.removeprefix(f'{day}, ')}"


def _data_uri(picture: bytes) -> str:
    kind = "jpeg" if picture.startswith(b"\xff\xd8") else "png"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
