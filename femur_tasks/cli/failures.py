"""Failures in words: one line says what, one why, one what to do, and the exit code says which kind."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import SecretStr, ValidationError
from pydantic_core import ErrorDetails

from femur_tasks.cli.show import err, masked
from femur_tasks.errors import FemurError

_MISUSED = 2  # typer's code for a wrong call; with 2 we say refused
_STOPPED = 130  # typer's code for Ctrl-C


_OPTIONS = {
    ("IngestParameters", "dataset"): "--name",
    ("RollbackParameters", "version"): "--to",
}  # those that are not called as their parameter


class Stopped(FemurError):
    """A person pressed Ctrl-C, and there is something to say about how to go on."""

    exit_code = _STOPPED


class Failures:
    """Tells failures on stderr; with `traceback` also where they come from."""

    traceback = False

    @contextmanager
    def told(self) -> Iterator[None]:
        """Turn what the block raises into words and an exit code.

        Raises:
            SystemExit: always, when the block raised what we know.
        """
        try:
            yield
        except SystemExit as ended:
            if ended.code == _STOPPED:
                err.print("stopped")
            sys.exit(1 if ended.code == _MISUSED else ended.code)
        except FemurError as error:
            self._tell([error.what], error.todo)
            sys.exit(error.exit_code)
        except ValidationError as error:
            self._tell([_sentence(error.title, fault) for fault in error.errors()], _todo(error.title))
            sys.exit(1)

    def _tell(self, what: list[str], todo: str) -> None:
        if self.traceback:
            traceback.print_exc()
        for line in what:
            expected, received, why = line.partition(" Received: ")
            err.print(expected, style="bold red", markup=False, highlight=False, soft_wrap=True)
            if received:
                err.print(f"{received.strip()} {why}", markup=False, highlight=False, soft_wrap=True)
        if todo:
            err.print(todo, markup=False, highlight=False, soft_wrap=True)


failures = Failures()


def _sentence(model: str, fault: ErrorDetails) -> str:
    """`--budget: Expected 'smoke', 'nightly' or 'full'. Received: 'huge'.`"""
    name = str(fault["loc"][0]) if fault["loc"] else model
    received = masked(repr(fault["input"]))
    if model == "Settings":
        from femur_tasks.settings import Settings

        place = f"FEMUR_{name.upper()}"
        if Settings.model_fields[name].annotation is SecretStr:
            received = "one that is not shown"
    else:
        place = _OPTIONS.get((model, name)) or f"--{name.replace('_', '-')}"
    return f"{place}: {_expected(fault)}. Received: {received}."


def _expected(fault: ErrorDetails) -> str:
    if fault["type"] == "string_pattern_mismatch":
        if "a-fA-F" in fault["ctx"]["pattern"]:
            return "Expected 64 hexadecimal digits"
        return "Expected lower-case letters, digits and . _ - (and @DIGEST behind the name of a dataset)"
    if fault["type"] == "literal_error":
        return f"Expected {fault['ctx']['expected'].removeprefix(repr('') + ', ')}"
    said = fault["msg"].removeprefix("Value error, ").partition(" Received:")[0].rstrip(".")
    said = re.sub(r"^Input should be (?=greater|less)", "Expected a number ", said)
    return re.sub(r"^(Input|String|List) should ", "Expected it to ", said).replace("Expected it to be ", "Expected ")


def _todo(model: str) -> str:
    if model == "Settings":
        return "Correct it where it is set: in the environment, in `.env` or in FEMUR_HOME/stack.env."
    return f"See `femur {model.removesuffix('Parameters').lower()} --help`."
