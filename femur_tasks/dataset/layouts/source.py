"""The files of a source, and what may be said of them: names of files and folders may hold patients' names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path, PurePosixPath

from femur_tasks.dataset.naming import Namer, is_dicom
from femur_tasks.dataset.problems import Faulty

PICTURES = (".nii.gz", ".nii", ".hdr", ".img", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm")
CLASSES_CSV = "_classes.csv"
_SPLITS = {"train": "train", "valid": "val", "val": "val", "test": "test"}
_PARTS = {"imgs", "targets", "images", "labels", "imagestr", "labelstr", "imagests", "labelsts", "annotations"}
_PLAIN = _PARTS.union(_SPLITS)
_NOISE = {"__MACOSX", "Thumbs.db", "desktop.ini", "Icon\r"}


@dataclass(frozen=True)
class Source:
    """A folder to recognise.

    Attributes:
        files: by their folder, in the order of their names, without those that operating systems leave behind.
    """

    folder: Path
    namer: Namer
    files: Mapping[Path, tuple[Path, ...]]

    @classmethod
    def of(cls, folder: Path, namer: Namer) -> Source:
        """Look through a folder and all below it; links that lead out of it are passed over.

        Raises:
            OSError: a folder cannot be read.
            Faulty: a name is no text.
        """
        files: dict[Path, tuple[Path, ...]] = {}
        todo, top = [folder], folder.resolve()
        while todo:
            here = todo.pop()
            paths = sorted(here.iterdir())
            paths = [path for path in paths if not (path.name.startswith(".") or path.name in _NOISE)]
            if not all(path.name.isprintable() for path in paths):
                raise Faulty("unreadable", "a file name with control characters", "file names in UTF-8")
            inside = [path for path in paths if not path.is_symlink() or _leads_inside(path, top)]
            todo += [path for path in inside if path.is_dir() and not path.is_symlink()]
            if found := tuple(path for path in inside if path.is_file()):
                files[here] = found
        return cls(folder, namer, dict(sorted(files.items())))

    @cached_property
    def present(self) -> frozenset[Path]:
        """Every file: what annotations name is looked up here, and nowhere else on the disk."""
        return frozenset(self.named())

    def named(self, *endings: str) -> Iterator[Path]:
        """The files whose names end so in any case of letters; all of them where nothing is asked."""
        for paths in self.files.values():
            yield from (path for path in paths if not endings or path.name.lower().endswith(endings))

    def stem(self, path: Path) -> str | None:
        """A picture's file name without its suffix, DICOM may have none; None where it is no picture."""
        for suffix in PICTURES:
            if path.name.lower().endswith(suffix) and len(path.name) > len(suffix):
                return path.name[: -len(suffix)]
        return path.name if path in self.present and is_dicom(path) else None

    def pictures(self, folder: Path) -> dict[str, list[Path]]:
        """The pictures of one folder by stem; several where they differ in their suffix, a .hdr/.img pair once."""
        found: dict[str, list[Path]] = {}
        for path in self.files.get(folder, ()):
            if (stem := self.stem(path)) is not None:
                found.setdefault(stem, []).append(path)
        for paths in found.values():
            if {path.suffix.lower() for path in paths} >= {".hdr", ".img"}:
                paths[:] = [path for path in paths if path.suffix.lower() != ".img"]
        return found

    def shown(self, path: Path) -> str:
        """The end of a folder's path as far as its names are those of a layout: others may name a patient."""
        parts = reversed(path.relative_to(self.folder).parts)
        plain = list(takewhile(lambda part: part.lower() in _PLAIN, parts))
        return "/".join([*reversed(plain), ""])


def _leads_inside(link: Path, top: Path) -> bool:
    try:
        return link.resolve().is_relative_to(top)
    except (OSError, RuntimeError):  # it leads to itself
        return False


def split_of(folder: Path) -> str | None:
    """The split that a folder's name says."""
    return _SPLITS.get(folder.name.lower())


def inside(folder: Path, name: object) -> Path:
    """A file that annotations name, below the folder.

    Raises:
        Faulty: it is no text, or a path that leads out of the folder.
    """
    if not isinstance(name, str):
        raise Faulty("bad_annotations", f"{kind(name)} as a path", "the path of a file")
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or parts[0] == "/" or ".." in parts or ":" in parts[0] or not name.isprintable():
        raise Faulty("bad_annotations", "a path that leads out of its folder", "paths inside the folder")
    return folder.joinpath(*parts)


def whole(text: str) -> int | None:
    """A class number as text; None where it is none."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


def kind(value: object) -> str:
    """What a value of JSON or YAML is, in words: its content may hold a patient's name."""
    if value is None:
        return "nothing"
    words = {bool: "a truth value", int: "a whole number", float: "a number", str: "a text", list: "a list"}
    return words.get(type(value), "an object")
