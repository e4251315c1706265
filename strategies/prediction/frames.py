"""Whose code is running: found in Python's frames, so that a prediction can say what it cannot follow.

Frames are looked at and let go: one that is kept, or asked for its variables, would keep tensors alive.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import CodeType, FrameType, TracebackType

OURS: Final = str(Path(__file__).resolve().parents[1])
LIBRARIES: Final = (str(Path(torch.__file__).parent), str(Path(__file__).resolve().parent), "<")  # between the two
PASSES: Final = (("training/losses.py", "_compute"), ("execution/engine.py", "backward"))
UPDATES: Final = f"{OURS}/methods/update/"  # from where optimizers are called
CHECKS: Final = ("torch_compilable_check",)  # functions that only raise an error


class Place(NamedTuple):
    """Code that runs, and its line."""

    code: CodeType
    line: int

    @property
    def file(self) -> str:
        """Its file."""
        return self.code.co_filename

    def __str__(self) -> str:
        name = getattr(self.code, "co_qualname", self.code.co_name)  # the class too, from Python 3.11 on
        return f"{name} ({Path(self.file).name}:{self.line})"


def callers(frame: FrameType | None) -> Iterator[Place]:
    """Give who called, the innermost first, without torch and what predicts."""
    while frame is not None:
        if not frame.f_code.co_filename.startswith(LIBRARIES):
            yield Place(frame.f_code, frame.f_lineno)
        frame = frame.f_back


def place_of_error(error: BaseException) -> str:
    """Name the innermost code that an error came through."""
    places = []
    traceback: TracebackType | None = error.__traceback__
    while traceback is not None:
        if not traceback.tb_frame.f_code.co_filename.startswith(LIBRARIES):
            places.append(Place(traceback.tb_frame.f_code, traceback.tb_lineno))
        traceback = traceback.tb_next
    return str(places[-1]) if places else "an update"


def is_of_model(places: Iterable[Place]) -> bool:
    """Say whether a model or a loss function runs, and no strategy or optimizer within."""
    found = list(places)
    own = next((place for place in found if place.file.startswith(OURS)), None)
    passing = any(place.file.endswith(file) and place.code.co_name == name for place in found for file, name in PASSES)
    if own is None or own is found[0] or not passing:
        return False
    return not own.file.startswith(UPDATES) and found[0].code.co_name not in CHECKS
