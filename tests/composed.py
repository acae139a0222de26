"""docker-compose.yaml as processes of this machine: what each container would run, told of other places and ports.

Commands of our own images stay as they are. What isolates containers from one another has no meaning here, and is
named; a key that is not named below is an error, so that nothing of the file is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from femur_tasks.stack.ports import _free_ports

_FILE = {"name", "services", "networks", "volumes", "secrets", "configs"}
_TAKEN = {"image", "entrypoint", "command", "environment", "secrets", "configs", "volumes", "tmpfs", "expose", "ports",
          "healthcheck", "depends_on", "deploy", "restart"}  # fmt: skip
_ISOLATION = {"read_only", "cap_drop", "security_opt", "networks", "logging", "init", "user", "build",
              "shm_size", "stop_grace_period"}  # fmt: skip
_HEALTH = {"test", "interval", "timeout", "retries", "start_period", "start_interval"}
_IMAGE_HOME, _IMAGE_CODE, _SECRETS = "/var/lib/femur", "/opt/femur", "/run/secrets"


@dataclass(frozen=True)
class Service:
    """One container as a process: `needs` are the services that it waits for, with the condition.

    `restarts` says whether it is started again when it ends: `unless-stopped`, or `on-failure` alone.
    """

    name: str
    image: str
    argv: list[str]
    environment: dict[str, str]
    check: list[str]
    needs: dict[str, str]
    ports: list[int]
    restarts: str
    files: dict[Path, str]
    folders: list[Path]


class Composed:
    """The file, with the places and ports that it gets here.

    Args:
        root: folder of everything that the services keep, with `code`, a link to the tree that the images of
            what starts next hold.
        variables: what `docker compose` would find in its environment.
    """

    def __init__(self, path: Path, root: Path, variables: Mapping[str, str]) -> None:
        self._root, self._folder, self.code = root, path.parent, root / "code"
        read = yaml.safe_load(path.read_text())
        self._file = _known({key: value for key, value in read.items() if not key.startswith("x-")}, _FILE, path.name)
        opened = [(name, port) for name, one in self._file["services"].items() for port in one.get("expose", ())]
        self._ports = dict(zip(opened, _free_ports(len(opened)), strict=True))
        self._fill = partial(_filled, variables)

    @property
    def names(self) -> list[str]:
        return list(self._file["services"])

    def port(self, service: str, inside: int) -> int:
        """Where a port that a service exposes lies here."""
        return self._ports[service, str(inside)]

    def replicas(self, name: str) -> int:
        deploy = _known(self._file["services"][name].get("deploy", {}), {"replicas", "resources"}, f"{name}.deploy")
        return int(deploy.get("replicas", 1))

    def service(self, name: str, number: int = 1) -> Service:
        """A service's replica of that number."""
        read = _known(self._file["services"][name], _TAKEN | _ISOLATION, name)
        for port in read.get("ports", ()):
            if not port.startswith("127.0.0.1:"):
                raise ValueError(f"Expected {name} to publish on loopback alone. Received: {port}.")
        places = self._places(name, number, read)
        told = partial(self._told, name, places)
        health = _known(read.get("healthcheck", {}), _HEALTH, f"{name}.healthcheck").get("test", ["CMD"])
        shell = {"CMD": [], "CMD-SHELL": ["sh", "-c"]}[health[0]]
        files = {Path(told(target)): self._told(name, {}, text) for target, text in self._contents(read, name).items()}
        return Service(
            name,
            read["image"],
            [told(word) for word in (*read.get("entrypoint", ()), *read["command"])],
            {key: told(str(value)) for key, value in read.get("environment", {}).items()},
            [*shell, *(told(word) for word in health[1:])],
            {other: need["condition"] for other, need in read.get("depends_on", {}).items()},
            [self._ports[name, port] for port in read.get("expose", ())],
            read["restart"],
            files,
            [Path(place) for path, place in places.items() if path != _IMAGE_CODE],
        )

    def _places(self, name: str, number: int, read: Mapping[str, Any]) -> dict[str, str]:
        """Where each of the container's folders lies here: a volume is every replica's, the rest its own."""
        own = self._root / f"{name}-{number}"
        code = self.code.resolve()
        places = {_IMAGE_CODE: code, _IMAGE_HOME: own / "home", _SECRETS: own / "secrets", "/etc": own / "etc"}
        places |= {path: own / "tmpfs" / path.strip("/") for path in read.get("tmpfs", ())}
        for volume in read.get("volumes", ()):
            source, path = volume.split(":")
            if source not in self._file["volumes"]:
                raise ValueError(f"Expected a named volume for {name}. Received: {volume}.")
            places[path] = self._root / "volumes" / source
        return {path: str(place) for path, place in places.items()}

    def _contents(self, read: Mapping[str, Any], name: str) -> dict[str, str]:
        """What lies in the files that are handed to a container, by their paths in it."""
        found = {}
        for kind in ("secrets", "configs"):
            for asked in read.get(kind, ()):
                one = {"source": asked} if isinstance(asked, str) else _known(asked, {"source", "target"}, name)
                target = one.get("target", f"{_SECRETS}/{one['source']}")
                defined = _known(self._file[kind][one["source"]], {"file"}, f"{kind}.{one['source']}")
                found[target] = (self._folder / self._fill(defined["file"])).read_text()
        return found

    def _told(self, name: str, places: Mapping[str, str], text: str) -> str:
        """A text of the file as this machine means it: variables, then hosts, own ports and folders."""
        hosts = "|".join(map(re.escape, self.names))
        text = re.sub(rf"\b({hosts}):(\d+)\b", lambda at: f"127.0.0.1:{self._ports[at[1], at[2]]}", self._fill(text))
        own = {port: str(here) for (service, port), here in self._ports.items() if service == name}
        if own:
            text = re.sub(rf"(?<!\d)({'|'.join(own)})(?!\d)", lambda at: own[at[1]], text)
        if places:
            paths = "|".join(sorted(map(re.escape, places), key=len, reverse=True))
            text = re.sub(rf"(?<![\w./-])({paths})(?![\w.-])", lambda at: places[at[1]], text)
        return text.replace("0.0.0.0", "127.0.0.1")  # noqa: S104 - it is what is replaced


def _known(found: dict[str, Any], keys: set[str], where: str) -> dict[str, Any]:
    if unknown := sorted(set(found) - keys):
        raise ValueError(f"Expected keys of {where} among {', '.join(sorted(keys))}. Received: {', '.join(unknown)}.")
    return found


def _filled(variables: Mapping[str, str], text: str) -> str:
    """The text with its variables filled in; the default of one may hold another."""
    innermost = re.compile(r"(?<!\$)\$\{(\w+):-([^{}]*)\}")
    while (filled := innermost.sub(lambda at: variables.get(at[1], at[2]), text)) != text:
        text = filled
    return text.replace("$$", "$")
