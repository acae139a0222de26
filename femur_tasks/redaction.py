"""Keeping secrets out of what is said: the values of secret settings, wherever they turn up in a text."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import quote, unquote

from pydantic import SecretStr

from femur_tasks.settings import Settings

_MASK = "***"
_SHORTEST = 4
"""Characters of a secret that is masked: what is shorter stands in every other word."""
_LONG_ENOUGH = 8
"""Of a part of a notification's address that may be a key, such as `slack://KEY/KEY/KEY`."""
_A_HOST = re.compile(r"localhost|(\d{1,3}\.){3}\d{1,3}|([a-z0-9-]+\.)+[a-z]{2,8}", re.I)


def secrets_of(settings: Settings) -> frozenset[str]:
    """Every text that must not be read anywhere: secret settings, passwords in addresses, the patients' key."""
    found = {value.get_secret_value() for _, value in settings if isinstance(value, SecretStr)}
    found.add(_password(settings.database_url))
    for url in settings.notify_places:
        found |= {url, *_keys(url)}
    key = settings.home / "patient.key"
    if key.is_file():
        found.add(key.read_text())
    written = {*found, *map(unquote, found), *(quote(text, safe="") for text in found)}
    return frozenset(text for text in written if len(text) >= _SHORTEST)


def redacted(text: str, settings: Settings) -> str:
    """The text with every secret of the settings as `***`."""
    pattern = _pattern(secrets_of(settings))
    return pattern.sub(_MASK, text) if pattern else text


@lru_cache
def _pattern(secrets: frozenset[str]) -> re.Pattern[str] | None:
    longest_first = sorted(secrets, key=len, reverse=True)  # else the rest of a longer one would stay
    return re.compile("|".join(map(re.escape, longest_first))) if secrets else None


def _password(url: str) -> str:
    # greedy: a password may hold an @ of its own
    found = re.match(r"[^:]+://[^:/@\s]*:(?P<password>\S*)@", url.partition("?")[0])
    return found["password"] if found else ""


def _keys(url: str) -> set[str]:
    """What of a notification's address may be a key: its password, and each part that is long and no host."""
    place, _, query = url.partition("://")[2].partition("?")
    parts = [*re.split(r"[/:@#,]", place), *(pair.partition("=")[2] for pair in query.split("&"))]
    long = {part for part in parts if len(part) >= _LONG_ENOUGH and "@" not in unquote(part)}
    return {_password(url), *(part for part in long if not _A_HOST.fullmatch(part))}
