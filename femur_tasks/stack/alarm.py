"""`python -m femur_tasks.stack.alarm`: supervisord's listener, which tells people of parts that end.

It lives beside the parts, so it also speaks when the scheduler or the registry is what is down, and it needs neither.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from supervisor import childutils

from femur_tasks import notifier
from femur_tasks.messages import Links, Message, part_down
from femur_tasks.settings import Settings, settings
from femur_tasks.stack.leftovers import HOME_MARK, note_session

_TRIES = 60
"""One a minute: a network that is away for an hour costs no message."""
log = logging.getLogger(__name__)


class Alarm:
    """What is to be told, kept until somebody took it. A part that is started again and again is told once a day."""

    def __init__(self, chosen: Settings, now: Callable[[], datetime]) -> None:
        self._settings, self._now = chosen, now
        self._told: set[str] = set()
        self._waiting: dict[Message, int] = {}

    def hear(self, event: str, payload: Mapping[str, str]) -> None:
        """Take one event of supervisord in, and try to send what waits."""
        if event.startswith("PROCESS_STATE_"):
            message = self._message(event, payload["processname"])
            if message.event not in self._told:
                self._told.add(message.event)
                self._waiting[message] = _TRIES
        for message in list(self._waiting):
            deliveries = notifier.send(self._settings, message)
            said = "; ".join(f"{one.place}: {one.why or 'sent'}" for one in deliveries)
            log.warning("%s %s", message.title, said)
            self._waiting[message] -= 1
            if any(one.is_sent for one in deliveries) or not self._waiting[message]:
                del self._waiting[message]

    def _message(self, event: str, part: str) -> Message:
        now, home = self._now(), self._settings.home
        links = Links(self._settings.airflow_url).page()
        if event.endswith("FATAL"):
            name, how = f"stack/{part}/given up/{now:%Y-%m-%dT%H:%M:%S}", "is down: it ended at every start"
            todo = f"Read {home / 'logs' / f'{part}.log'}, then start it with `femur up`."
        else:
            name, how = f"stack/{part}/ended/{now:%Y-%m-%d}", "ended, and is started again"
            todo = f"Read {home / 'logs' / f'{part}.log'}. If it ends again today, nobody is told."
        return part_down(name, part, how, todo, links)


def main() -> None:
    """Listen until supervisord ends."""
    note_session(Path(os.environ[HOME_MARK]))
    logging.basicConfig(format="%(asctime)s %(message)s")
    alarm = Alarm(settings(), lambda: datetime.now(UTC))
    while True:
        headers, payload = childutils.listener.wait()
        alarm.hear(headers["eventname"], childutils.get_headers(payload.partition("\n")[0]))
        childutils.listener.ok()


if __name__ == "__main__":
    main()
