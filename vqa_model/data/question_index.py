"""Keeps questions that were read and checked, as arrays in the cache: half a minute of parsing becomes a moment.

An index belongs to files of these names, sizes and times; whatever changes one of them makes a new index. It holds
plain arrays and JSON, never pickles, and a damaged one is made again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from vqa_model.cache_folder import cache_folder, new_folder
from vqa_model.data.questions import Pools, Questions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_FORMAT = 1  # raised when the arrays or the evaluator's normal forms change
_COLUMNS, _POOLS = "columns.safetensors", "pools.json"


def load_or_index(files: Sequence[Path], read: Callable[[], Questions]) -> Questions:
    """Give the questions of `files` from their index; where there is none, `read` them and keep it."""
    folder = cache_folder() / f"questions-{_key(files)}"
    if folder.is_dir():
        try:
            return _load(folder)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            shutil.rmtree(folder, ignore_errors=True)
    questions = read()
    with new_folder(folder) as draft:
        _save(questions, draft)
    return questions


def _key(files: Sequence[Path]) -> str:
    digest = hashlib.sha256(str(_FORMAT).encode())
    for file in files:
        stat = file.stat()
        digest.update(f"{file.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _save(questions: Questions, folder: Path) -> None:
    pools = dict(vars(questions.pools))
    columns = {**questions.columns, "form_of": pools.pop("form_of")}
    save_file({name: np.ascontiguousarray(column) for name, column in columns.items()}, folder / _COLUMNS)
    (folder / _POOLS).write_text(json.dumps(pools), encoding="utf-8")


def _load(folder: Path) -> Questions:
    columns = load_file(folder / _COLUMNS)
    pools = json.loads((folder / _POOLS).read_text(encoding="utf-8"))
    return Questions(pools=Pools(form_of=columns.pop("form_of"), **pools), **columns)
