"""What the service would start, in full: the request and what the service adds by its contract. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

from backends.interface import ContainerRequest, Mount
from training_image.contracts import CHECKPOINTS, CONTRACTS, DATA, OUTPUT, SPEC, Contract

SPEC_FILE = "spec.json"
NAMED_FOLDER = re.compile(r"\$\{\{\s*(inputs|outputs)\.(\w+)\s*\}\}")
ANY_FOLDER = re.compile(r"\$\{\{.*?\}\}")
_UNRESOLVED = re.compile(r"<([a-z-]+)\.(\w+)>")


@dataclass(frozen=True)
class Volume:
    """A folder that the service mounts."""

    path: str
    read_only: bool
    kept: bool
    """Whether a second start finds it as the first one left it."""
    folders: tuple[str, ...]
    """Paths of the request's folders in it."""


@dataclass(frozen=True)
class Layout:
    """A container as the service would start it."""

    request: ContainerRequest

    @property
    def contract(self) -> Contract:
        """The service's contract."""
        return CONTRACTS[self.request.service]

    def path(self, mount: Mount) -> str:
        """Where the folder is in the container."""
        if mount.name.startswith("/"):
            return mount.name.rstrip("/")
        pattern = self.contract.inputs if mount.holds in (SPEC, DATA) else self.contract.outputs
        return pattern.format(name=mount.name.strip("/"))

    def paths(self, *holds: str) -> list[str]:
        """The folders that hold one of these."""
        return [self.path(mount) for mount in self.request.mounts if mount.holds in holds]

    @property
    def spec(self) -> str:
        """The path of ``spec.json``."""
        return f"{(self.paths(SPEC) or self.paths(DATA))[0]}/{SPEC_FILE}"

    @property
    def output(self) -> str:
        """The folder whose content the service keeps as the job's output."""
        return self.paths(OUTPUT)[0]

    @cached_property
    def volumes(self) -> tuple[Volume, ...]:
        """All that is mounted."""
        parts: dict[str, list[Mount]] = {}
        for mount in self.request.mounts:
            parts.setdefault(self._root(self.path(mount)), []).append(mount)
        return tuple(
            Volume(
                path=root,
                read_only=self.contract.inputs_read_only and all(mount.holds in (SPEC, DATA) for mount in mounts),
                kept=any(mount.holds in self.contract.kept for mount in mounts),
                folders=tuple(self.path(mount) for mount in mounts),
            )
            for root, mounts in parts.items()
        )

    def volume(self, path: str) -> Volume | None:
        """The volume that a path lies in."""
        return next((volume for volume in self.volumes if within(path, volume.path)), None)

    @property
    def entrypoint(self) -> tuple[str, ...] | None:
        """What replaces the image's entry point; None: nothing does."""
        return self.contract.line_shell or self.request.entrypoint

    @property
    def arguments(self) -> tuple[str, ...]:
        """What follows the entry point, names of folders replaced by their paths."""
        given = self.contract.argv if self.request.arguments is None else self.request.arguments
        return tuple(NAMED_FOLDER.sub(lambda match: self._named(match) or match[0], text) for text in given)

    def unknown_folders(self) -> Iterator[str]:
        """What stands for a folder in the command line and is none of the request's."""
        for text in self.arguments if self.contract.line_shell else ():
            yield from ANY_FOLDER.findall(text)

    @property
    def environment(self) -> dict[str, str]:
        """All variables but the secrets': the service's own go before the request's."""
        return {**self.request.environment, **self.contract.environment, **self.request.derived}

    @property
    def files(self) -> dict[str, str]:
        """The files that the service writes, by path."""
        contract = self.contract
        files: dict[str, Any] = dict(contract.files)
        if contract.hyperparameters_file:
            files[contract.hyperparameters_file] = self.request.hyperparameters
        if contract.inputs_file:
            inputs = [mount.name for mount in self.request.mounts if mount.holds in (SPEC, DATA)]
            files[contract.inputs_file] = dict.fromkeys(inputs, contract.input_entry)
        return {path: json.dumps(content) for path, content in files.items()}

    def _root(self, path: str) -> str:
        depth = self.contract.volume_depth
        return path if depth is None else str(PurePosixPath(*PurePosixPath(path).parts[: depth + 1]))

    def _named(self, match: re.Match[str]) -> str | None:
        wanted = (SPEC, DATA) if match[1] == "inputs" else (OUTPUT, CHECKPOINTS)
        mounts = [mount for mount in self.request.mounts if mount.holds in wanted and mount.name == match[2]]
        return self.path(mounts[0]) if mounts else None


def within(path: str, folder: str) -> bool:
    """Whether the path is the folder or lies in it."""
    return PurePosixPath(path).is_relative_to(folder)


def without_placeholders(request: ContainerRequest) -> ContainerRequest:
    """Account facts that are not given get names of their own: ``<vertex.bucket>`` becomes ``vertex-bucket``."""
    return ContainerRequest.model_validate_json(_UNRESOLVED.sub(r"\1-\2", request.model_dump_json()))


def of_contract(service: str) -> ContainerRequest:
    """What stands for a plan where no backend makes one: the contract's folders, told by flags where it has to be."""
    contract = CONTRACTS[service]
    if contract.line_shell:
        flags = "--data ${{inputs.data}} --output ${{outputs.output}} --checkpoints ${{outputs.checkpoints}}"
        return ContainerRequest(
            service=service,
            mounts=(
                Mount(name="data", holds="data"),
                Mount(name="output", holds="output"),
                Mount(name="checkpoints", holds="checkpoints"),
            ),
            arguments=(f"exec python -m training_image train {flags}",),
        )
    return ContainerRequest(
        service=service,
        mounts=(
            Mount(name=str(contract.data), holds="data"),
            Mount(name=str(contract.output), holds="output"),
            Mount(name=str(contract.checkpoints), holds="checkpoints"),
        ),
        entrypoint=contract.python or None,
        environment={"FTLAUNCH_DATA": str(contract.data)} if contract.variables else {},
    )
