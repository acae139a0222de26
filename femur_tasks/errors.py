"""What the library raises. A rejected model is a verdict and a bad case is a problem: neither is an error here."""

from __future__ import annotations


class FemurError(Exception):
    """Misuse, or a part that does not answer.

    Args:
        what: one sentence, "Expected X. Received: Y" where a value was wrong.
        todo: what the reader should do next.
    """

    exit_code = 1

    def __init__(self, what: str, todo: str = "") -> None:
        super().__init__(f"{what} {todo}".strip())
        self.what = what
        self.todo = todo


class Rejected(FemurError):
    """Data or a model was refused: what is wrong with it is the caller's to show."""

    exit_code = 2


class Hopeless(FemurError):
    """What failed would fail again in the same way: nobody is to try it again."""


class StepFailed(FemurError):
    """TensorFlow or JAX failed in a step of training: it may be the configuration's fault, or the machine's."""


class Unreachable(FemurError):
    """The object store or the registry database does not answer."""

    exit_code = 3


class NotFound(FemurError):
    """A name or an id that the registry or the store does not know."""


class WasCollected(NotFound):
    """Garbage collection took away what is asked for: nothing is broken, and nothing returns."""


class DigestMismatch(FemurError):
    """Bytes in the store are not the bytes that their name promises."""


class StaleChampion(FemurError):
    """The champion is no longer the one that the verdict compared with."""


class LeaseLost(FemurError):
    """The trial's lease expired and was taken over: this worker's token is no longer valid."""
