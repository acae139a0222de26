"""Annotation files: JSON, YAML and text, read with limits on size, depth and memory."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NoReturn

import yaml

from femur_tasks.dataset.problems import Faulty

MAX_JSON_BYTES = 64 << 20
MAX_YAML_BYTES = 1 << 20
MAX_TEXT_BYTES = 4 << 20
MAX_TREE_BYTES = 560_000_000
# memory of what begins at each mark, measured on Python 3.11
_BYTES_AFTER = {",": 40, "[": 70, "{": 110, '"': 35, ":": 150}


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        Faulty: it is too large as a file or in memory, nested too deep, no JSON, or gives a field twice.
    """
    text = read_text(path, MAX_JSON_BYTES)
    size = sys.getsizeof(text) + sum(text.count(mark) * each for mark, each in _BYTES_AFTER.items())
    if size > MAX_TREE_BYTES:
        raise Faulty("too_large", f"JSON that takes {size >> 20} MiB of memory", f"at most {MAX_TREE_BYTES >> 20} MiB")
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_refused)
    except json.JSONDecodeError as err:
        raise Faulty("bad_annotations", f"no JSON at line {err.lineno}, column {err.colno}", "a JSON file") from err
    except RecursionError as err:
        raise Faulty("bad_annotations", "lists within lists without end", "a JSON file of a few levels") from err
    except ValueError as err:  # of the hooks below, or a number of thousands of digits
        told = err.args[0] if isinstance(err, _Refused) else "a number that is too long"
        raise Faulty("bad_annotations", told, "a JSON file with plain numbers and each field once") from err


def read_yaml(path: Path) -> Any:
    """The content of a YAML file as texts, lists and mappings: a class may well be called `no` or `1`.

    Raises:
        Faulty: it is too large, nested too deep, or no YAML.
    """
    text = read_text(path, MAX_YAML_BYTES)
    try:
        # knows no tags, dates or merge keys: an alias stays one shared object, and no bomb goes off
        return yaml.BaseLoader(text).get_single_data()
    except yaml.YAMLError as err:
        mark = getattr(err, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise Faulty("bad_annotations", f"no YAML{where}", "a YAML file") from err
    except (RecursionError, ValueError, TypeError) as err:  # TypeError: a list as a key
        raise Faulty("bad_annotations", "no plain YAML", "a YAML file of a few levels") from err


def read_text(path: Path, max_bytes: int) -> str:
    """The text of a file.

    Raises:
        Faulty: it is longer, cannot be read, or is no UTF-8.
    """
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as err:
        raise Faulty("unreadable", f"{err.strerror}", "a file that can be read") from err
    if len(content) > max_bytes:
        raise Faulty("too_large", f"a file of over {max_bytes >> 20} MiB", f"at most {max_bytes >> 20} MiB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        raise Faulty("bad_annotations", f"no UTF-8 at byte {err.start}", "text in UTF-8") from err


class _Refused(ValueError):
    pass


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Refused("a field that is given twice")
    return found


def _refused(constant: str) -> NoReturn:
    raise _Refused(f"{constant} as a number")
