"""Writes ``docs/job-file.md``: every key of the job file with its values, default and meaning, as the code has them.

Usage: python -m scripts.job_file_page. A test holds the page to what this makes.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from launcher.job import Job, keys

PAGE = Path(__file__).parents[1] / "docs" / "job-file.md"
HEAD = """# The job file

`ftlaunch init DATA` writes one for a data file; the shortest says which model, which rows, and what they are:

```yaml
model: {id: HuggingFaceTB/SmolLM2-135M-Instruct}
data: {train: reviews.jsonl, columns: {text: review, label: stars}}
task: {type: classification}
```

Paths are relative to the job file. An unknown key is an error that names the nearest known one; all errors of a file
come at once, with their lines. `--set train.epochs=1` sets a key for one run. What stands under `backends.NAME` is on
the page of the place, and may stand in your own `config.yaml` ([Facts of an account](backends.md#facts-of-an-account)).

Editors complete and check by the JSON schema, which has the options of the places too: `ftlaunch schema >
ftlaunch.schema.json`, and as the job file's first line

```yaml
# yaml-language-server: $schema=ftlaunch.schema.json
```
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The page's text."""
    parts = [HEAD]
    top = [name for name in keys() if "." not in name]
    parts.append(_table("At the top", ((name, Job.model_fields[name]) for name in top)))
    for name, field in Job.model_fields.items():
        if name not in top and name != "backends":
            parts.append(_table(f"`{name}`", _below(_section(field), f"{name}.")))
    return "\n".join(parts)


def _below(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    """All keys of a section with their dotted names, those of its own sections too."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _below(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def _section(field: FieldInfo) -> type[BaseModel]:
    assert isinstance(field.annotation, type)
    assert issubclass(field.annotation, BaseModel)
    return field.annotation


def _table(title: str, fields: Iterator[tuple[str, FieldInfo]]) -> str:
    rows = [f"| `{name}` | {_default(field)} | {_meaning(field)} |" for name, field in fields]
    return "\n".join([f"## {title}", "", "| key | default | what it means |", "|---|---|---|", *rows, ""])


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    value = field.get_default(call_default_factory=True)
    if value is None or value in ([], {}):
        return ""
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _meaning(field: FieldInfo) -> str:
    choices = _choices(field.annotation)
    text = (field.description or "").replace("|", "\\|")
    named = all(str(choice) in text for choice in choices)
    return text if named else f"{text} One of {', '.join(f'`{choice}`' for choice in choices)}."


def _choices(annotation: object) -> list[object]:
    """The values that a key may take, where they are listed."""
    if typing.get_origin(annotation) is typing.Literal:
        return list(typing.get_args(annotation))
    return [choice for part in typing.get_args(annotation) for choice in _choices(part)]


if __name__ == "__main__":
    main()
