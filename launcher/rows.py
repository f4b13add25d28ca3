"""A job's rows as files of their own: each split by itself, as the container would read and split them.

So a trial of a sweep gets training and validation rows and no test row at all, and each point of a learning curve is
judged on the very same test rows.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.home import data_home
from launcher import submission
from launcher.job import JobFile
from training_image.errors import InputError
from training_image.spec import Split

if TYPE_CHECKING:
    from training_image.data.load import Splits


def read_splits(file: JobFile) -> Splits:
    """The rows of a job, split, and cleaned as it asks. Raises InputError for rows that cannot be trained on."""
    try:
        from training_image.data.load import load_splits

        return load_splits(submission.with_own_paths(file), Path.cwd())
    except ModuleNotFoundError as error:
        raise InputError(f"reading the rows needs {error.name}", hint="pip install 'ftlaunch[local]'") from error


def with_rows(
    file: JobFile, train: Sequence[Any], validation: Sequence[Any], test: Sequence[Any] | None = None
) -> JobFile:
    """The job on just these examples (`training_image.data.Example`); without ``test`` it has no test rows."""
    places = {"train": _kept(train), "validation": _kept(validation) if validation else None}
    places["test"] = _kept(test) if test is not None else None
    taken = {name: None if path is None else str(path) for name, path in places.items()}
    # What the file asked to drop is dropped already.
    settled = {"split": Split(validation=0.0, test=0.0), "min_rows": 1, "max_rows": None, "on_duplicate": "keep"}
    data = file.job.data.model_copy(update=taken | settled)
    return dataclasses.replace(file, job=file.job.model_copy(update={"data": data}))


def _kept(examples: Sequence[Any]) -> Path:
    """The rows as they were, in a file that is named by its content."""
    lines = [json.dumps(dict(example.fields), ensure_ascii=False, default=str) + "\n" for example in examples]
    content = "".join(lines).encode("utf-8", errors="surrogatepass")
    folder = data_home() / "rows"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{hashlib.sha256(content).hexdigest()[:32]}.jsonl"
    if not path.exists():
        handle, new = tempfile.mkstemp(dir=folder)
        with os.fdopen(handle, "wb") as written:
            written.write(content)
        Path(new).rename(path)
    return path


def nested(file: JobFile, splits: Splits, count: int) -> list[Any]:
    """``count`` training rows, among them those of every smaller count; for classification label by label in turn.

    Which rows follows from the rows themselves, not from their order; they stay in order.
    """
    from training_image.data.split import own_keys

    rows = splits.train
    keys = own_keys(rows, file.job.data.columns.get("id", "id"))
    turns: dict[str, int] = defaultdict(int)
    ranked = []
    for key, place in sorted((key, place) for place, key in enumerate(keys)):
        label = rows[place].answer if splits.labels else ""
        ranked.append((turns[label], key, place))
        turns[label] += 1
    chosen = {place for *_, place in sorted(ranked)[:count]}
    return [row for place, row in enumerate(rows) if place in chosen]
