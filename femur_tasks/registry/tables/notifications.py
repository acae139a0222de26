"""What people were told."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint
from sqlalchemy.orm import Mapped, mapped_column

from femur_tasks.registry.tables.base import Base


class Notification(Base):
    """The append-only log of messages: a row before each attempt, `trying`, and one behind it.

    `trying` alone belongs to one that is on its way, or was killed there: it may have arrived, so it is never sent
    again. `detail` says which places took it, and why others did not.
    """

    __tablename__ = "notification"
    event: Mapped[str] = mapped_column(primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    outcome: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    title: Mapped[str]
    text: Mapped[str]
    detail: Mapped[str]
    at: Mapped[datetime] = mapped_column(index=True)
    __table_args__ = (CheckConstraint("outcome in ('trying', 'sent', 'failed')", name="outcome"),)
