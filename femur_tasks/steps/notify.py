"""Telling people: whatever happened and was not told yet, once each. Nothing here ever fails its caller.

What happened is in the registry, and so is what was told: the difference is due. So it does not matter who looks
(the end of a run, a rollback, the morning's look) nor how often.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from functools import wraps
from typing import Concatenate, ParamSpec

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from femur_tasks import messages, notifier
from femur_tasks.errors import Unreachable
from femur_tasks.messages import Links, Message
from femur_tasks.redaction import redacted
from femur_tasks.registry.tables import Notification
from femur_tasks.settings import Settings
from femur_tasks.steps.context import Context
from femur_tasks.steps.events import Event, happened, silence

P = ParamSpec("P")
log = logging.getLogger(__name__)
_ATTEMPTS = 5


def _never_failing(step: Callable[Concatenate[Context, P], None]) -> Callable[Concatenate[Context, P], None]:
    """The step, whose failures are logged and go no further; without a place for messages it does nothing."""

    @wraps(step)
    def quiet(context: Context, *args: P.args, **kwargs: P.kwargs) -> None:
        if context.settings.notify_places:
            try:
                step(context, *args, **kwargs)
            except Exception as err:  # noqa: BLE001 - whatever it is: who waits for a run waits for no message
                log.warning("nobody was told: %s", redacted(f"{type(err).__name__}: {err}", context.settings))

    return quiet  # type: ignore[return-value]  # wraps names the first argument, Callable does not


@_never_failing
def tell(context: Context) -> None:
    """Send what is due."""
    with context.registry.reading() as session:
        due = _due(context, session, happened(session, context.settings, context.now()))
    _send(context, due)


@_never_failing
def tell_failure(context: Context, dag: str, run_id: str, task: str, why: str) -> None:
    """Send that a task failed for good, once a run: its row may have no outcome yet, or never get one."""
    links = Links(context.settings.airflow_url).run(dag, run_id)
    message = messages.failure(f"failure/{dag}/{run_id}", f"{dag}, task {task},", why, links)
    with context.registry.reading() as session:
        due = _due(context, session, [_ready(message)])
    _send(context, due)


@_never_failing
def watch(context: Context) -> None:
    """The morning's look: what is due, what did not happen, and which part of the stack does not work."""
    now, settings = context.now(), context.settings
    down = [_ready(message) for message in _parts_down(settings, now)]
    try:
        with context.registry.reading() as session:
            events = (*down, *silence(session, settings, now), *happened(session, settings, now))
            due = _due(context, session, events)
    except Unreachable as err:  # where nothing can be noted either
        if "stack" in settings.notify_on:
            notifier.send(
                settings, messages.part_down("", "The registry", "is silent", redacted(err.what, settings), [])
            )
        raise
    _send(context, due)


def send_test(settings: Settings) -> list[notifier.Delivery]:
    """Send a message that says that messages arrive; what came of each place."""
    links = Links(settings.airflow_url).page()
    return notifier.send(settings, messages.part_down("", "A test:", "messages arrive", "Nothing is wrong.", links))


def _ready(message: Message) -> Event:
    return Event(message.event, message.kind, lambda: message)


def _due(context: Context, session: Session, events: Iterable[Event]) -> list[Message]:
    """The messages of those events that people want to hear of and were not told of."""
    settings = context.settings
    wanted = {event.name: event for event in events if event.kind in settings.notify_on}
    found = [event.message() for name, event in wanted.items() if _next_attempt(session, name)]
    return [
        replace(message, title=redacted(message.title, settings), text=redacted(message.text, settings))
        for message in found
    ]


def _next_attempt(session: Session, event: str) -> int:
    """The number of the next attempt at an event's message, 0 where there is none to make."""
    rows = session.execute(select(Notification.attempt, Notification.outcome).where(Notification.event == event))
    outcomes: dict[int, set[str]] = defaultdict(set)
    for attempt, outcome in rows:
        outcomes[attempt].add(outcome)
    last = max(outcomes, default=0)
    may_try = last == 0 or ("failed" in outcomes[last] and last < _ATTEMPTS)
    return last + 1 if may_try else 0


def _send(context: Context, due: Iterable[Message]) -> None:
    for message in due:
        if attempt := _claimed(context, message):
            deliveries = notifier.send(context.settings, message)
            outcome = "sent" if any(one.is_sent for one in deliveries) else "failed"
            detail = "; ".join(f"{one.place}: {one.why or 'sent'}" for one in deliveries)
            log.log(
                logging.INFO if outcome == "sent" else logging.WARNING, "%s, %s: %s", message.event, outcome, detail
            )
            with context.registry.writing() as session:
                session.add(_row(context, message, attempt, outcome, detail))


def _claimed(context: Context, message: Message) -> int:
    """The attempt that is ours to make, 0 where another process was faster."""
    try:
        with context.registry.writing() as session:
            if attempt := _next_attempt(session, message.event):
                session.add(_row(context, message, attempt, "trying", ""))
            return attempt
    except IntegrityError:
        return 0


def _row(context: Context, message: Message, attempt: int, outcome: str, detail: str) -> Notification:
    return Notification(
        event=message.event,
        attempt=attempt,
        outcome=outcome,
        kind=message.kind,
        title=message.title,
        text=message.text,
        detail=detail,
        at=context.now(),
    )


def _parts_down(settings: Settings, now: datetime) -> Iterator[Message]:
    """Parts of this home's stack that were started and do not work, each once a day."""
    from femur_tasks.stack.status import status
    from femur_tasks.stack.supervision import parts_seen, was_started

    if not was_started(settings.home):
        return
    links, todo = Links(settings.airflow_url).page(), "`femur status` shows the parts; `femur up` starts what is down."
    if parts_seen(settings.home) is None:
        yield messages.part_down(f"stack/supervisord/{now:%Y-%m-%d}", "The stack's supervisor", "is dead", todo, links)
        return
    for part in status(settings):
        if part.state not in ("stopped", "starting") and not part.healthy:
            event, how = f"stack/{part.name}/{now:%Y-%m-%d}", f"does not work ({part.state})"
            yield messages.part_down(event, part.name, how, f"Read {part.log}. {todo}", links)
