"""The job file: strict, documented, at most 60 keys, every error with its line.

What the container reads is `training_image.spec`; what is added here says where the job runs and what it may cost.
Precedence: ``--set a.b=c``, the job file, the user's config file, the defaults. Paths are relative to the job file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from backends import registry
from backends.home import config_home
from backends.interface import Resources
from launcher import complaints, yamlfile
from launcher.models_cache import local_model
from training_image.errors import InputError
from training_image.spec import ROLES, Data, Evaluate, Model, Section, Task, Tracking, Train

FILE = "ftlaunch.yaml"
"""The job file of a folder."""
SPLITS = ("train", "validation", "test")
HUB = "hub:"
"""Beginning of a data source that is not a file here."""
SCHEMA = "ftlaunch schema"
LARGEST = 2**53
"""The largest number that every reader of JSON takes as it is; no key means a larger one."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


class Machine(Section):
    """The machine that is asked for."""

    gpu: str | None = Field(None, description="GPU asked for (T4, L4, A10G, A100, H100); default: the place's own.")
    machine: str | None = Field(None, description="The place's own name of a machine (ml.g5.2xlarge, g2-standard-8).")
    machines: Annotated[int, Field(ge=1)] = Field(1, description="Number of machines.")
    spot: bool = Field(False, description="Interruptible machines at a lower bill.")


class Budget(Section):
    """What the job may cost; the place stops it then, whether or not the launcher still runs."""

    max_usd: Annotated[float, Field(gt=0)] | None = Field(None, description="Most dollars; refused if not to be kept.")
    max_hours: Annotated[float, Field(gt=0)] | None = Field(None, description="Most hours of running.")


class Layers(Section):
    """What the training image gets beside its own."""

    extra: str | None = Field(
        None,
        description="File of requirements with hashes, installed as a layer of their own: a plug-in's metric, say.",
    )


class Job(Section):
    """A whole job file."""

    name: str | None = Field(None, description="Beginning of the job's name; default: the file's name or its folder's.")
    model: Model
    data: Data
    task: Task
    train: Train = Field(default_factory=Train)
    evaluate: Evaluate = Field(default_factory=Evaluate)
    tracking: Tracking = Field(default_factory=Tracking)
    backend: str = Field("local", description="Where it runs: local, docker, sagemaker ...; --backend goes before it.")
    resources: Machine = Field(default_factory=Machine)
    image: Layers = Field(default_factory=Layers)
    budget: Budget = Field(default_factory=Budget)
    secrets: list[str] = Field(
        default_factory=list, description="Names of environment variables or keyring entries that the job gets."
    )
    backends: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Facts and options of each place, by its name: role, bucket, project ..."
    )

    def machine(self) -> Resources:
        """`resources` as a backend takes it."""
        return Resources.model_validate(self.resources.model_dump())

    @property
    def max_seconds(self) -> int | None:
        """Longest run time in seconds, from `budget`."""
        hours = self.budget.max_hours
        return None if hours is None else max(1, round(hours * 3600))


@dataclass(frozen=True)
class JobFile:
    """A job with where it came from."""

    job: Job
    path: Path
    """The job file, absolute."""
    sets: tuple[str, ...] = ()
    goal: Literal["tune", "trial", "screen"] = "tune"
    """What the container is asked for (`training_image.spec.Spec.goal`); not the user's to set."""
    candidates: tuple[str, ...] = ()
    """The base models of a screening: hub ids or folders."""

    @property
    def stem(self) -> str:
        """`Job.name`, else the file's name or its folder's: at most 54 lower-case letters, digits and hyphens."""
        raw = self.job.name or (self.path.parent.name if self.path.name == FILE else self.path.stem)
        return re.sub(r"[^a-z0-9]+", "-", raw.lower())[:54].strip("-") or "job"

    def located(self, text: str) -> Path:
        """A path of the job file, made absolute."""
        return _located(text, self.path.parent)

    @property
    def base_model(self) -> str:
        """What the base model is called in results: the hub id as it was written, or the folder's whole path."""
        named = _model_folder(self.job.model.id, self.path.parent)
        return self.job.model.id if named is None else str(named)

    @property
    def model_folder(self) -> Path | None:
        """The folder of a local base model, or of a hub id that was made ready here; None for another hub id."""
        model = self.job.model
        named = _model_folder(model.id, self.path.parent)
        return local_model(model.id) if named is None and model.revision is None else named

    @property
    def image_extra(self) -> Path | None:
        """The file of requirements that the image gets beside its own."""
        extra = self.job.image.extra
        return None if extra is None else self.located(extra)

    def folder_of_model(self, name: str) -> Path | None:
        """The folder of another base model, given as a folder or made ready here; None for another hub id."""
        return _model_folder(name, self.path.parent) or local_model(name)

    def data_files(self) -> dict[str, Path]:
        """The local data files by split; what comes from the hub is not among them."""
        data = self.job.data
        named = zip(SPLITS, (data.train, data.validation, data.test), strict=True)
        return {name: self.located(text) for name, text in named if text and not text.startswith(HUB)}

    def as_submitted(self) -> str:
        """The effective job (file, config and --set together) as a job file with absolute paths."""
        content = {"name": self.stem} | self.job.model_dump(exclude_defaults=True)
        content["data"] |= {name: str(path) for name, path in self.data_files().items()}
        if self.model_folder is not None:
            content["model"]["id"] = str(self.model_folder)
        if self.image_extra is not None:
            content["image"]["extra"] = str(self.image_extra)
        head = f"# as submitted from {self.path}"
        return "\n".join([head, *(f"# with --set {text}" for text in self.sets), yamlfile.dump(content)])


def locate(argument: str | None) -> Path:
    """The job file that a JOB argument means: a file, or a folder that holds ``ftlaunch.yaml``."""
    given = Path(argument or ".").expanduser()
    path = given / FILE if given.is_dir() else given
    if path.is_file():
        return path.absolute()
    if argument is None:
        raise InputError(f"there is no {FILE} here", hint="ftlaunch init DATA writes one; ftlaunch demo shows a job")
    missing = (
        f"the folder {given} holds no {FILE}" if given.is_dir() else f"there is no job file or folder {argument!r}"
    )
    raise InputError(missing, hint="ftlaunch init DATA writes a job file; ftlaunch --help lists the commands")


def load(argument: str | None, sets: Sequence[str] = (), backend: str | None = None) -> JobFile:
    """Read and check a job. Raises InputError with all that is wrong, one line each with file and line."""
    path = locate(argument)
    return JobFile(_checked(_merged(path, sets, backend), path), path, tuple(sets))


def _checked(document: yamlfile.Document, path: Path) -> Job:
    errors = [*document.errors, *_numbers(document.value, (), document)]
    errors += [*_further(path.parent, document), *_option_errors(document)]
    try:
        job = Job.model_validate(document.value)
    except ValidationError as error:
        raise _all_errors(path, [*complaints.messages(error, Job, (), document, list(keys())), *errors]) from None
    if errors:
        raise _all_errors(path, errors)
    return job


def _all_errors(path: Path, errors: list[str]) -> InputError:
    many = f"{path} has {len(errors)} errors" if len(errors) > 1 else f"{path} is not a valid job"
    return InputError("\n  ".join([f"{many}:", *sorted(errors, key=complaints.line)]), hint=f"{SCHEMA} shows every key")


def schema() -> dict[str, Any]:
    """The JSON schema of a job file, with the options of every backend that can be loaded."""
    made = Job.model_json_schema()
    options = made["properties"]["backends"]
    options["properties"] = {}
    for name, found in registry.every().items():
        if isinstance(found, registry.Broken):
            continue
        part = found.options.model_json_schema(ref_template=f"#/$defs/{name}.{{model}}")
        for inner, definition in part.pop("$defs", {}).items():
            made["$defs"][f"{name}.{inner}"] = definition
        options["properties"][name] = part
    made["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    made["title"] = "ftlaunch job file"
    return made


def keys(model: type[BaseModel] = Job, prefix: str = "") -> Iterator[str]:
    """The dotted names of all keys that take a value; the options of the backends are not among them."""
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from keys(annotation, f"{prefix}{name}.")
        elif (prefix, name) != ("", "backends"):
            yield prefix + name


def _merged(path: Path, sets: Sequence[str], backend: str | None) -> yamlfile.Document:
    config = config_home() / "config.yaml"
    documents = [yamlfile.read(config)] if config.is_file() else []
    documents.append(yamlfile.read(path))
    documents += [_set(text) for text in sets]
    if backend:
        documents.append(yamlfile.Document({"backend": backend}, {("backend",): f"--backend {backend}"}))
    merged = yamlfile.Document(places={(): f"{path}:1"})
    for document in documents:
        _merge(merged.value, document.value)
        merged.places |= {keys: place for keys, place in document.places.items() if keys}
        merged.errors += document.errors
    return merged


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    for name, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(name), dict):
            _merge(below[name], value)
        else:
            below[name] = value


def _set(text: str) -> yamlfile.Document:
    name, equals, value = text.partition("=")
    names = name.strip().split(".")
    if not equals or not all(names):
        raise InputError(f"--set {text}: expected KEY=VALUE", hint="for example --set train.epochs=1")
    content: Any = yamlfile.value(value)
    for part in reversed(names):
        content = {part: content}
    places: dict[yamlfile.Keys, str] = {tuple(names[: end + 1]): f"--set {text}" for end in range(len(names))}
    return yamlfile.Document(value=content, places=places)


def _numbers(value: Any, where: yamlfile.Keys, document: yamlfile.Document) -> Iterator[str]:
    """Numbers that nothing can be reckoned with: infinities, and what is beyond `LARGEST`."""
    if isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _numbers(inner, (*where, name), document)
    elif isinstance(value, int | float) and not abs(value) <= LARGEST:
        yield f"{complaints.place(where, document)}: {'.'.join(map(str, where))} must be a finite number up to 9e15"


def _further(folder: Path, document: yamlfile.Document) -> Iterator[str]:
    """What pydantic cannot see: roles, and files that must be there."""
    data = _group(document.value, "data")
    for role in _group(data, "columns"):
        if role not in ROLES:
            near = complaints.nearest(role, ROLES) or f"; known: {', '.join(sorted(ROLES))}"
            yield f"{complaints.place(('data', 'columns', role), document)}: data.columns has no role {role!r}{near}"
    for name in SPLITS:
        text = data.get(name)
        if isinstance(text, str) and not text.startswith(HUB):
            path = _located(text, folder)
            if not path.is_file():
                yield f"{complaints.place(('data', name), document)}: data.{name}: there is no file {path}"
    extra = _group(document.value, "image").get("extra")
    if isinstance(extra, str) and not _located(extra, folder).is_file():
        place = complaints.place(("image", "extra"), document)
        yield f"{place}: image.extra: there is no file {_located(extra, folder)}"
    model_id = _group(document.value, "model").get("id")
    if isinstance(model_id, str):
        model = _model_folder(model_id, folder)
        place = complaints.place(("model", "id"), document)
        if model is None and not _HUB_ID.fullmatch(model_id):
            yield f"{place}: model.id: {model_id!r} is neither a folder here nor a hub id (org/name)"
        elif model is not None and not model.is_dir():
            yield f"{place}: model.id: there is no folder {model}"
        elif model is not None and not (model / "config.json").is_file():
            yield f"{place}: model.id: {model} holds no config.json, so it is no transformers checkpoint"


def _group(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = content.get(name)
    return found if isinstance(found, dict) else {}


def _located(text: str, folder: Path) -> Path:
    return Path(os.path.abspath(folder / Path(text).expanduser()))


def _model_folder(text: str, folder: Path) -> Path | None:
    path = _located(text, folder)
    return path if path.is_dir() or text.startswith((".", "/", "~")) else None


def _option_errors(document: yamlfile.Document) -> Iterator[str]:
    chosen = document.value.get("backend", "local")
    given = document.value.get("backends")
    options: dict[str, Any] = given if isinstance(given, dict) else {}
    for name in dict.fromkeys([chosen, *options]):
        if not isinstance(name, str):
            continue
        where: yamlfile.Keys = ("backends", name) if name in options else ("backend",)
        try:
            backend = registry.load(name)
        except InputError as error:
            yield f"{complaints.place(where, document)}: {'.'.join(map(str, where))}: {error.message}; {error.hint}"
            continue
        try:
            backend.options.model_validate(options.get(name) or {})
        except ValidationError as error:
            known = list(backend.options.model_fields)
            yield from complaints.messages(error, backend.options, ("backends", name), document, known)
