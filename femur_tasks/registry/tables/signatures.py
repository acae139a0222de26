"""Public keys, and the signatures of model versions."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from femur_tasks.registry.tables.base import Base


class SigningKey(Base):
    """A public key, 64 hex digits of Ed25519; a revoked one's signatures count no more."""

    __tablename__ = "signing_key"
    key_id: Mapped[str] = mapped_column(primary_key=True)
    public_key: Mapped[str]
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class Signature(Base):
    """A model version's signature; the newest counts."""

    __tablename__ = "signature"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_version.id"), index=True)
    key_id: Mapped[str] = mapped_column(ForeignKey("signing_key.key_id"))
    signature: Mapped[str]
    signed_at: Mapped[datetime]
