"""`femur keys`: the keys that sign model versions."""

from __future__ import annotations

from typing import Annotated

import typer

from femur_tasks.cli.show import AsJson, err, print_json, print_table, when
from femur_tasks.errors import Rejected

app = typer.Typer(no_args_is_help=True)


@app.callback()
def keys() -> None:
    """The keys that sign model versions, and how to change them.

    A model version is signed before it is judged, and proven at every load.

    Examples:

      femur keys list
      femur keys rotate             a new key signs from now on
      femur keys rotate --revoke    and the old one counts no more
    """


@app.command("list")
def list_keys(as_json: AsJson = False) -> None:
    """List the public keys, and how many model versions each has signed."""
    from sqlalchemy import func, select

    from femur_tasks.registry.database import Registry
    from femur_tasks.registry.tables import Signature, SigningKey
    from femur_tasks.settings import settings

    signed = select(func.count()).where(Signature.key_id == SigningKey.key_id).scalar_subquery()
    with Registry(settings().database_url).reading() as session:
        rows = [
            {
                "key_id": key.key_id,
                "public_key": key.public_key,
                "created_at": key.created_at.isoformat(),
                "revoked_at": key.revoked_at.isoformat() if key.revoked_at else None,
                "signatures": count,
            }
            for key, count in session.execute(select(SigningKey, signed).order_by(SigningKey.created_at))
        ]
    if as_json:
        print_json(rows)
        return
    shown = [
        (r["key_id"], when(r["created_at"]), when(r["revoked_at"]) or "in use", str(r["signatures"])) for r in rows
    ]
    print_table(
        "Signing keys", ("key", "since", "revoked", "signatures"), shown, "No key yet: the first run makes one."
    )


@app.command()
def rotate(
    revoke: Annotated[bool, typer.Option("--revoke", help="Let the old key's signatures count no more.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put a new signing key in the old one's place.

    With --revoke, what the old key signed is proven once more and signed again; exit code 2 where something could not
    be proven.
    """
    from femur_tasks.steps.context import open_context
    from femur_tasks.steps.signatures import rotate as rotate_keys

    told = rotate_keys(open_context(), revoke)
    if as_json:
        print_json(told)
    else:
        again = f", {told['signed']} model versions signed again" if revoke else ", whose signatures still count"
        err.print(f"key {told['key']} signs from now on, instead of {told['before']}{again}")
    if told["broken"]:
        raise Rejected("; ".join(told["broken"]), "Their model versions are proven no more: train them again.")
