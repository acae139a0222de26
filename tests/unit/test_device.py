"""One process a card: claims in processes of their own, on files that stand for the cards."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from subprocess import PIPE, Popen

import pytest

from femur_tasks.settings import CHECKOUT
from femur_tasks.training import device

CLAIM = """
import os, sys
from pathlib import Path
from femur_tasks.training.device import claim
print(claim(Path(sys.argv[1])), os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("nvidia0", "nvidia1", "nvidia10", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


class Claimant:
    """A process that claims a card and holds it until it is told to end."""

    def __init__(self, cards: Path, visible: str | None = None) -> None:
        env = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
        env |= {"CUDA_VISIBLE_DEVICES": visible} if visible is not None else {}
        command = [sys.executable, "-c", CLAIM, str(cards)]
        self.process = Popen(command, cwd=CHECKOUT, env=env, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True)  # noqa: S603

    def told(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def warning(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.readline()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def test_each_process_gets_a_card_of_its_own_and_the_last_waits(cards: Path) -> None:
    claimants = [Claimant(cards) for _ in range(3)]
    waits = None
    try:
        assert sorted(one.told() for one in claimants) == ["0 0", "1 1", "10 10"]
        waits = Claimant(cards)
        assert "waiting for one of 3 cards" in waits.warning()
        claimants[1].kill()
        assert waits.told() in ("0 0", "1 1", "10 10")
    finally:
        for one in [*claimants, *([waits] if waits else [])]:
            one.kill()


@pytest.mark.parametrize(
    ("visible", "said"),
    [
        pytest.param("1", "1 1", id="a number"),
        pytest.param("10,0", "10 10", id="in that order"),
        pytest.param("", "None", id="no card"),
        pytest.param("GPU-8932f937", "None GPU-8932f937", id="by its name"),
        pytest.param("7", "None 7", id="one that is not there"),
    ],
)
def test_only_cards_that_the_environment_names_are_taken(cards: Path, visible: str, said: str) -> None:
    claimant = Claimant(cards, visible)
    try:
        assert claimant.told() == said
    finally:
        claimant.kill()


def test_machine_without_a_card_waits_for_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert device.claim(tmp_path) is None
