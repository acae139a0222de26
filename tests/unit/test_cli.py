"""The CLI: help that teaches, secrets that stay secret, failures in words with their exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from femur_tasks import cli
from femur_tasks.cli import show
from femur_tasks.errors import FemurError
from femur_tasks.registry.database import Registry, migrate
from femur_tasks.registry.tables import IncomingPicture
from femur_tasks.settings import settings
from tests.radiographs import grey_hw, nifti
from tests.registry_rows import NOON

COMMANDS = (
    "up", "down", "status", "config", "demo-data", "ingest", "retrain", "promote", "rollback", "predict", "registry",
    "keys", "verify",
)  # fmt: skip
CHANGES = {
    "demo", "up", "down", "open", "demo-data", "promote", "rollback", "dataset export", "dataset withdraw",
    "dataset report", "runs cancel", "runs continue", "registry download", "cluster prepare", "cluster secrets",
}  # fmt: skip
"""Commands that change something, write a file or open a browser, and answer in a line for people."""
ASKED = ("", "status", "config", "metrics", "dataset list", "dataset ingests", "runs list", "registry list",
         "registry leaderboard", "registry champion", "registry history", "keys list")  # fmt: skip
Femur = Callable[..., int]


@pytest.fixture
def femur(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Femur]:
    """Runs the CLI in this process, in a home of its own, and returns the exit code."""
    for name in [name for name in os.environ if name.startswith("FEMUR_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FEMUR_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(show.out, "width", 300)  # else long paths fold what the tests look for
    monkeypatch.chdir(tmp_path)
    settings.cache_clear()

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["femur", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    yield run
    settings.cache_clear()


def _as_process(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("FEMUR_")} | {
        "FEMUR_HOME": str(home)
    }
    command = [Path(sys.executable).with_name("femur"), *arguments]
    return subprocess.run(  # noqa: S603 - no part of the command comes from outside
        command, cwd=home, env=env, capture_output=True, text=True, timeout=60
    )


def test_help_lists_the_commands_in_panels(femur: Femur, capsys: pytest.CaptureFixture[str]) -> None:
    assert femur("--help") == 0
    said = capsys.readouterr().out
    panels = [word for line in said.splitlines() if line.startswith("╭") for word in line.split()[1:2]]
    assert panels == ["Options", "Stack", "Data", "Training", "Registry"]
    for command in COMMANDS:
        assert f"│ {command} " in said


def _commands(group: Any, path: str = "") -> Iterator[tuple[str, set[str]]]:
    """Every command with its options."""
    for name, found in group.commands.items():
        called = f"{path} {name}".strip()
        if hasattr(found, "commands"):
            yield from _commands(found, called)
        else:
            yield called, {option for parameter in found.params for option in parameter.opts}


def test_every_command_that_reads_speaks_json() -> None:
    found = dict(_commands(typer.main.get_command(cli.app)))
    assert {name for name, options in found.items() if "--json" not in options} == CHANGES
    assert set(ASKED) - {""} <= found.keys()


def test_shell_completes_commands(tmp_path: Path) -> None:
    asked = {"_FEMUR_COMPLETE": "complete_bash", "COMP_WORDS": "femur reg", "COMP_CWORD": "1"}
    done = subprocess.run(  # noqa: S603 - our own command
        [Path(sys.executable).with_name("femur")], env={**os.environ, **asked, "FEMUR_HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["registry"]


def test_overview_says_which_pictures_wait(femur: Femur, capsys: pytest.CaptureFixture[str]) -> None:
    migrate(settings().database_url)
    with Registry(settings().database_url).writing() as session:
        for number in range(2):
            session.add(IncomingPicture(
                key=f"incoming-images/hip/{number}.png", etag="e", size_bytes=1, model="hip", state="waiting", tries=0,
                problem="", flags=[], seen_at=NOON,
            ))  # fmt: skip
    assert femur("--json") == 0
    assert json.loads(capsys.readouterr().out)["waits"] == ["2 incoming pictures of hip for the DAG predict_incoming"]


def test_json_is_json_with_nothing_in_the_registry(femur: Femur, capsys: pytest.CaptureFixture[str]) -> None:
    migrate(settings().database_url)
    for command in ASKED:
        assert femur(*command.split(), "--json") == 0
        json.loads(capsys.readouterr().out)


def test_help_says_the_first_steps(femur: Femur, capsys: pytest.CaptureFixture[str]) -> None:
    femur("--help")
    said = capsys.readouterr().out
    steps = [said.index(f"femur {step}") for step in ("up ", "demo-data --out", "ingest xrays", "retrain --budget")]
    assert steps == sorted(steps)


@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in {"down", "status"}])
def test_help_of_a_command_shows_an_example(femur: Femur, capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert femur(command, "--help") == 0
    examples = capsys.readouterr().out.partition("Examples:")[2]
    assert f"femur {command}" in examples


def test_help_loads_nothing_heavy() -> None:
    code = "import sys, femur_tasks.cli; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)  # noqa: S603 - ours
    heavy = {"numpy", "scipy", "sqlalchemy", "minio", "keras", "tensorflow", "airflow", "supervisor", "nibabel"}
    assert heavy.isdisjoint(done.stdout.split())
    assert "femur_tasks.cli.training" in done.stdout


@pytest.mark.parametrize("arguments", [("config",), ("config", "--json")], ids=["table", "json"])
@pytest.mark.parametrize(
    ("registry_url", "shown"),
    [
        ("postgresql://user:pw-hush@host/db", "postgresql://user:***@host/db"),
        ("postgresql://user:pw-hush@x/hush@host/db", "postgresql://user:***@host/db"),
        ("postgresql://:pw-hush@host/db", "postgresql://:***@host/db"),
        ("postgresql://host/db?user=u&password=pw-hush&a=1", "postgresql://host/db?user=u&password=***&a=1"),
    ],
    ids=["password", "password with @ and /", "no user", "password in the query"],
)
def test_config_masks_secrets(
    femur: Femur,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    registry_url: str,
    shown: str,
) -> None:
    monkeypatch.setenv("FEMUR_REGISTRY_URL", registry_url)
    monkeypatch.setenv("FEMUR_S3_ACCESS_KEY", "AK-hush")
    monkeypatch.setenv("FEMUR_S3_SECRET_KEY", "SK-hush")
    monkeypatch.setenv("FEMUR_AIRFLOW_URL", "http://admin:web-hush@localhost:8080")
    assert femur(*arguments) == 0
    said = capsys.readouterr().out
    assert "hush" not in said
    assert shown in said
    assert "http://admin:***@localhost:8080" in said


def test_config_shows_a_url_without_a_password_as_it_is(
    femur: Femur, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEMUR_REGISTRY_URL", "postgresql://user@host:5432/db?connect_timeout=3")
    assert femur("config", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["registry_url"] == "postgresql://user@host:5432/db?connect_timeout=3"
    assert said["s3_access_key"] == said["s3_secret_key"] == "", "an empty secret shows that it is not set"


def test_without_a_store_ingest_ends_with_3_and_names_femur_up(tmp_path: Path) -> None:
    done = _as_process(tmp_path, "ingest", ".")
    assert done.returncode == 3
    assert done.stdout == ""
    what, why, todo = done.stderr.strip().splitlines()
    assert what == "Expected an object store."
    assert why.startswith("Received: ")
    assert "`femur up`" in todo


def test_without_a_registry_the_list_ends_with_3(femur: Femur, capsys: pytest.CaptureFixture[str]) -> None:
    assert femur("registry", "list") == 3
    said = capsys.readouterr().err
    assert "`femur up`" in said
    assert "Traceback" not in said


def test_debug_shows_the_traceback_and_keeps_the_exit_code(femur: Femur, capsys: pytest.CaptureFixture[str]) -> None:
    assert femur("--debug", "registry", "list") == 3
    assert "Traceback" in capsys.readouterr().err
    assert femur("registry", "list") == 3
    assert "Traceback" not in capsys.readouterr().err


def test_ingest_of_a_missing_path_ends_with_1(
    femur: Femur, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("femur_tasks.steps.context.open_context", lambda: None)
    assert femur("ingest", "/no/such/[folder]") == 1
    assert "Received: /no/such/[folder], which is not there." in capsys.readouterr().err


@pytest.mark.parametrize("question", ["list", "champion", "history"])
def test_empty_registry_is_an_empty_json_list(femur: Femur, capsys: pytest.CaptureFixture[str], question: str) -> None:
    migrate(settings().database_url)
    assert femur("registry", question, "--json") == 0
    assert json.loads(capsys.readouterr().out) == []
    assert femur("registry", question) == 0
    assert "femur retrain" in capsys.readouterr().err, "a person is told how to fill it"


@pytest.mark.parametrize("command", [("ingest", "."), ("retrain",)], ids=["ingest", "retrain"])
def test_unknown_budget_lists_the_choices(
    femur: Femur, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    assert femur(*command, "--budget", "huge") == 1
    what, why, todo = capsys.readouterr().err.strip().splitlines()
    assert what == "--budget: Expected 'smoke', 'nightly' or 'full'."
    assert why == "Received: 'huge'."
    assert todo == f"See `femur {command[0]} --help`."


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("ingest", ".", "--size", "33"), "--size: Expected a multiple of 8.\nReceived: 33."),
        (("ingest", ".", "--name", "A b"), "--name: Expected lower-case letters"),
        (("ingest", ".", "--layout", "zip"), "--layout: Expected 'reference', 'flat', 'nnunet'"),
        (("ingest", ".", "--allow", "near_duplicate"), "--allow: Expected one of missing_partner, "),
        (("ingest", ".", "--patient-pattern", "P[0-9]+"), "--patient-pattern: Expected a pattern with a group"),
        (("ingest", ".", "--sha256", "abc"), "--sha256: Expected 64 hexadecimal digits.\nReceived: 'abc'."),
        (
            ("retrain", "--families", "unet,vgg"),
            "--families: Expected 'baseline', 'unet' or 'tuned'.\nReceived: 'vgg'.",
        ),
    ],
    ids=["size", "name", "layout", "allow", "pattern", "digest", "family"],
)
def test_wrong_parameter_is_named_as_its_option(
    femur: Femur, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert femur(*arguments) == 1
    assert said in capsys.readouterr().err


def test_wrong_setting_is_named_as_its_variable(
    femur: Femur, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEMUR_SEARCH_WORKERS", "900")
    assert femur("config") == 1
    assert (
        "FEMUR_SEARCH_WORKERS: Expected a number less than or equal to 64.\nReceived: '900'." in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    "arguments", [("nonsense",), ("predict",), ("rollback",)], ids=["command", "argument", "option"]
)
def test_wrong_call_ends_with_1_for_2_says_refused(femur: Femur, arguments: tuple[str, ...]) -> None:
    assert femur(*arguments) == 1


def _interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


def nothing_to_train(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run without families, on a registry that nobody asks."""
    monkeypatch.setattr("femur_tasks.cli.training.watching", lambda *_: nullcontext())
    monkeypatch.setattr("femur_tasks.steps.context.open_context", lambda: SimpleNamespace(registry=None))
    monkeypatch.setattr("femur_tasks.steps.run.open_run", lambda *_: {"why": "asked", "news": True, "families": []})


def test_stopped_retrain_says_how_to_go_on(
    femur: Femur, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing_to_train(monkeypatch)
    monkeypatch.setattr("femur_tasks.steps.champion.decide", _interrupted)
    assert femur("retrain", "--run-id", "night-1") == 130
    assert capsys.readouterr().err.splitlines()[-2:] == ["stopped", "Go on with `femur retrain --run-id night-1`."]


def test_retrain_that_needs_a_person_does_not_promote_without_a_terminal(
    femur: Femur, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = {"state": "awaits_approval", "verdict_id": 1, "challenger": "femur:2", "rules": []}
    nothing_to_train(monkeypatch)
    monkeypatch.setattr("femur_tasks.steps.champion.decide", lambda *_: waits)
    monkeypatch.setattr("femur_tasks.steps.champion.settle_approval", lambda *_: pytest.fail("settled"))
    assert femur("retrain", "--run-id", "night-1") == 130
    assert "approve femur:2" in capsys.readouterr().err


def test_failed_retrain_is_closed_and_says_how_to_go_on(
    femur: Femur, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise FemurError("Expected a loss. Received: none.")

    closed: list[str] = []
    nothing_to_train(monkeypatch)
    monkeypatch.setattr("femur_tasks.steps.champion.decide", fails)
    monkeypatch.setattr("femur_tasks.steps.close.close_run", lambda _, run_id: closed.append(run_id))
    assert femur("retrain", "--run-id", "night-1") == 1
    assert closed == ["night-1"]
    assert "--run-id night-1" in capsys.readouterr().err


def test_any_other_command_just_stops(
    femur: Femur, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("femur_tasks.stack.status.status", _interrupted)
    assert femur("status") == 130
    assert capsys.readouterr().err == "stopped\n"


def test_status_of_a_stack_that_never_ran_says_how_to_start_it(
    femur: Femur, capsys: pytest.CaptureFixture[str]
) -> None:
    assert femur("status", "--json") == 0
    parts = json.loads(capsys.readouterr().out)
    assert {part["state"] for part in parts} == {"stopped"}
    assert femur("status") == 0
    assert "`femur up`" in capsys.readouterr().err


def test_demo_data_writes_the_reference_layout(femur: Femur, tmp_path: Path) -> None:
    assert femur("demo-data", "--out", "xrays", "--cases", "5", "--size", "64") == 0
    found = sorted(path.relative_to(tmp_path / "xrays").parts[:2] for path in (tmp_path / "xrays").rglob("*.nii.gz"))
    assert found.count(("train", "imgs")) == 3
    assert found.count(("valid", "targets")) == found.count(("test", "targets")) == 1


def test_refused_dataset_ends_with_2_and_the_problems(
    femur: Femur, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from femur_tasks.dataset.problems import Problem
    from femur_tasks.steps.publish import Ingested

    problem = Problem("unknown_layout", "case[1]", "[/] looks like markup", "a pair of folders")
    refused = Ingested("cli-1", "refused", "femur", None, {}, (problem,), b"<html>", "reports/1")
    monkeypatch.setattr("femur_tasks.steps.context.open_context", lambda: None)
    monkeypatch.setattr("femur_tasks.steps.ingest.ingest", lambda *_, **__: refused)
    assert femur("ingest", ".") == 2
    said = capsys.readouterr()
    assert "case[1]" in said.out
    assert "[/] looks like markup" in said.out
    assert said.err.startswith("Refused: nothing of femur changed.")
    assert "femur dataset report cli-1" in said.err
    assert femur("ingest", ".", "--json", "--report", "page.html") == 2
    assert json.loads(capsys.readouterr().out)["state"] == "refused"
    assert Path("page.html").read_bytes() == b"<html>"


def predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A champion that needs neither registry nor store."""
    from tests.served import lone_femur, served

    monkeypatch.setattr(
        "femur_tasks.steps.context.open_context",
        lambda: SimpleNamespace(registry=None, store=None, settings=settings()),
    )
    monkeypatch.setattr("femur_tasks.serving.champion.serve", lambda *_: served(lone_femur))


def test_predict_tells_flags_and_leaves_the_exit_code_at_0(
    femur: Femur, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    predicted(monkeypatch)
    Path("a.nii").write_bytes(nifti(grey_hw(1).T))
    assert femur("predict", "a.nii", "--out", "masks") == 0
    said = capsys.readouterr()
    assert "one_femur" in said.out
    assert "a femur on one side alone" in said.out, "what the flag means"
    assert "pictures: 1 in " in said.err
    assert "a second" in said.err
    assert femur("predict", "a.nii", "--out", "masks", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["pictures"][0]["flags"] == ["one_femur"]
    assert told == json.loads(Path("masks/predictions.json").read_text())


def test_predict_ends_with_2_where_a_picture_was_refused(
    femur: Femur, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    predicted(monkeypatch)
    Path("a.nii").write_bytes(nifti(grey_hw(1).T))
    Path("b.png").write_bytes(b"no picture")
    assert femur("predict", "a.nii", "b.png", "--out", "masks") == 2
    said = capsys.readouterr()
    assert "unreadable" in said.out
    assert "1 of 2 pictures were refused." in said.err
    assert Path("masks/a_mask.nii.gz").exists()


def test_predict_refuses_a_runtime_that_is_none(femur: Femur, capsys: pytest.CaptureFixture[str]) -> None:
    assert femur("predict", "a.nii", "--out", "masks", "--runtime", "torch") == 1
    assert "--runtime: Expected 'onnx' or 'keras'.\nReceived: 'torch'." in capsys.readouterr().err
