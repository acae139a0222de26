"""State files that only their owner can read, replaced as a whole."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from femur_tasks.errors import FemurError

Model = TypeVar("Model", bound=BaseModel)


def private_dir(path: Path) -> Path:
    """Make the folder, readable by its owner alone, whatever mode it had before."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
    return path


def write_private(path: Path, text: str) -> None:
    """Replace the file in one step: a reader sees the old text or the new one, and nobody else sees either."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def read_model(path: Path, model: type[Model]) -> Model | None:
    """The model kept in the file, None where there is no file.

    Raises:
        FemurError: the file is damaged.
    """
    try:
        return model.model_validate_json(path.read_text())
    except FileNotFoundError:
        return None
    except ValidationError as err:
        raise FemurError(
            f"Expected {path} to hold what the stack wrote there. Received: {err.error_count()} faults.",
            "Restore the file from a backup, or stop the stack and delete it: it is then made anew.",
        ) from err
