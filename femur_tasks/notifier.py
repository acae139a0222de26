"""Sending a message to every place that FEMUR_NOTIFY_URLS names, through Apprise."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from femur_tasks.messages import Message
from femur_tasks.redaction import redacted
from femur_tasks.settings import Settings

_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Delivery:
    """What came of one place.

    Attributes:
        place: its number in FEMUR_NOTIFY_URLS and its kind of service; an address may be a secret.
        why: why it failed, empty where it worked.
    """

    place: str
    why: str

    @property
    def is_sent(self) -> bool:
        return not self.why


def send(settings: Settings, message: Message) -> list[Delivery]:
    """Send a message to every place, one after the other; each may take a few times 5 seconds, and none raises."""
    return [_sent(number, url, message, settings) for number, url in enumerate(settings.notify_places, 1)]


def _sent(number: int, url: str, message: Message, settings: Settings) -> Delivery:
    import apprise

    with _said() as lines:
        service = apprise.Apprise.instantiate(url)
        if not isinstance(service, apprise.NotifyBase):
            found = redacted("; ".join(lines) or "another", settings)
            return Delivery(f"{number}: unknown", f"Expected a URL that Apprise understands. Received: {found}.")
        place = f"{number}: {service.service_name}"
        service.socket_connect_timeout = service.socket_read_timeout = _TIMEOUT_S
        sender = apprise.Apprise()
        sender.add(service)
        try:
            is_sent = sender.notify(message.text, title=message.title, body_format=apprise.NotifyFormat.TEXT)
        except Exception as err:  # noqa: BLE001 - one of a hundred services, and whoever sends is never to fail by it
            return Delivery(place, redacted(f"{type(err).__name__}: {err}", settings))
    return Delivery(place, "" if is_sent else redacted(_reason(lines), settings))


def _reason(lines: Sequence[str]) -> str:
    return "; ".join(lines) or "the service did not take it"


@contextmanager
def _said() -> Iterator[list[str]]:
    """What Apprise says of its troubles, here alone: its words may hold an address with a password."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "://" not in record.getMessage():  # an address, of which Apprise hides most
                lines.append(record.getMessage())

    logger, keep = logging.getLogger("apprise"), Keep(logging.WARNING)
    before, propagates = logger.level, logger.propagate
    logger.addHandler(keep)
    logger.propagate = False
    try:
        yield lines
    finally:
        logger.removeHandler(keep)
        logger.level, logger.propagate = before, propagates
