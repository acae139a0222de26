"""Names of cases and patients: what a file name may tell, and a keyed pseudonym where it may not."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from dataclasses import dataclass
from pathlib import Path

from femur_tasks.errors import FemurError

_EXPORTED = re.compile(r"^(?P<base>.+?)(_(png|jpe?g|tiff?|dcm|bmp|nii|gz))?\.rf\.(?P<hash>[0-9A-Za-z]{8,})$")
_DIGITS = 12
_PSEUDONYM = re.compile(r"p-[0-9a-f]{12}")


@dataclass(frozen=True)
class Name:
    """How a case is called, and whose picture it is; `variant` tells exports of one original apart."""

    case_id: str
    patient: str
    variant: str = ""


@dataclass(frozen=True)
class Namer:
    """Turns the stem of a file name into a case's name.

    Attributes:
        key: of the HMAC behind every pseudonym.
        pattern: finds the patient in a stem, as group `patient` or the first one; that part of the case id is
            replaced by its pseudonym. None: each case is a patient of its own.
        hide: names of files may hold a patient's name, as those of DICOM files do: case ids are pseudonyms.
    """

    key: bytes
    pattern: re.Pattern[str] | None = None
    hide: bool = False

    def named(self, stem: str) -> Name:
        """The name of the case whose file name, without suffixes, is `stem`.

        `HIP_0001_png.rf.0af3...`, as annotation tools export it, is the case HIP_0001; its hash is the variant.
        """
        exported = _EXPORTED.match(stem)
        base, variant = (exported["base"], exported["hash"][:8]) if exported else (stem, "")
        found = self.pattern.search(base) if self.pattern else None
        if found and found.re.groups:
            group: str | int = "patient" if "patient" in found.re.groupindex else 1
            if found[group]:
                patient = self.pseudonym(found[group])
                base = f"{base[: found.start(group)]}{patient}{base[found.end(group) :]}"
                return Name(self.pseudonym(base) if self.hide else base, patient, variant)
        case_id = self.pseudonym(base) if self.hide else base
        return Name(case_id, case_id, variant)

    def pseudonym(self, text: str) -> str:
        """HMAC-SHA256 of a patient's identity or of a file name that may hold one, 48 bits of it.

        What is a pseudonym already stays as it is: exported cases come back under their own names.
        """
        if _PSEUDONYM.fullmatch(text):
            return text
        digest = hmac.new(self.key, text.strip().encode(), hashlib.sha256).hexdigest()
        return f"p-{digest[:_DIGITS]}"


def compiled(pattern: str | None) -> re.Pattern[str] | None:
    """A pattern with the group that finds the patient.

    Raises:
        FemurError: it is no regular expression, or has no group.
    """
    if not pattern:
        return None
    try:
        found = re.compile(pattern)
    except re.error as err:
        raise FemurError(f"Expected a regular expression. Received: {pattern!r}, {err}.") from err
    if not found.groups:
        raise FemurError(
            f"Expected a pattern with a group around the patient. Received: {pattern!r}.",
            r"Write it as `^(?P<patient>P\d+)_`.",
        )
    return found


def is_dicom(path: Path) -> bool:
    """Whether a file has the mark of DICOM behind its preamble, or is called so: a damaged one may lack the mark."""
    if path.suffix.lower() == ".dcm":
        return True
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def holds_dicom(folder: Path) -> bool:
    """Whether any file below a folder has the mark of DICOM; folders may lie in one another as deep as they like."""
    todo = [folder]
    while todo:
        try:
            inside = list(os.scandir(todo.pop()))
        except OSError:  # whoever reads the source says what can't be read
            continue
        todo += [Path(entry.path) for entry in inside if entry.is_dir(follow_symlinks=False)]
        if any(entry.is_file(follow_symlinks=False) and is_dicom(Path(entry.path)) for entry in inside):
            return True
    return False
