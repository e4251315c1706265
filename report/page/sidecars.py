"""Reads what lies beside the CSVs: records, logs, predictions, example pictures, cards of strategies.

All of it is optional. What is not there, or cannot be read, is a note on the page and never a guess; a run's id is
part of a path here, so an id that is no plain name is not followed.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final

import pandas as pd
from pandas.api.types import is_numeric_dtype

from report.frames.paired import scores_of
from report.frames.predictions import read_predictions
from report.frames.sidecars import SAFE_NAME, SidecarFiles

if TYPE_CHECKING:
    from collections.abc import Iterable

    from report.frames.paired import Scores

LOG_LINES: Final = 25
LOG_BYTES: Final = 8_000
MAX_RECORD_BYTES: Final = 2_000_000
MAX_PICTURE_BYTES: Final = 1_500_000
PICTURES: Final = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}


class PageSidecars(SidecarFiles):
    """The side files of one folder, as the page shows them."""

    def records(self, run_ids: Iterable[str]) -> list[dict[str, Any]]:
        """What record.json says beyond the CSVs, as long as it fits the page: spec, environment, log."""
        found, budget = [], MAX_RECORD_BYTES
        for run_id in run_ids:
            record = self.json(f"runs/{run_id}/record.json", dict) if SAFE_NAME.fullmatch(run_id) else {}
            kept = {key: record[key] for key in ("spec", "environment") if isinstance(record.get(key), dict)}
            log = self._log(run_id) if SAFE_NAME.fullmatch(run_id) else ""
            budget -= len(str(kept.get("spec", ""))) + len(log)
            found.append(
                kept | {"log": log, "there": bool(record)} if budget > 0 else {"log": "", "there": bool(record)}
            )
        if budget <= 0:
            self.notes.append("the runs' records are too many for one page; the page links to runs/RUN/record.json")
        return found

    def _log(self, run_id: str) -> str:
        """The last lines of a run's log."""
        path = self.folder / "runs" / run_id / "log.txt"
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_BYTES))
            text = file.read().decode("utf-8", errors="replace")
        return "\n".join(text.splitlines()[-LOG_LINES:])

    def predictions(self, run_ids: Iterable[str], example_ids: list[Any]) -> tuple[Scores, dict[str, dict[str, Any]]]:
        """Scores of all questions by run; answer, probability and score of `example_ids`, by their ids as text."""
        scores: Scores = {}
        answers: dict[str, dict[str, Any]] = {}
        found = read_predictions(self.folder, run_ids, ("id", "prediction", "probability", "score"))
        for run_id, table in found.items():
            scores[run_id] = scores_of(table)
            if "prediction" in table:
                numbers = is_numeric_dtype(table["id"])  # text where a sweep has tasks with ids of either kind
                some = table[table["id"].isin(example_ids if numbers else [str(example) for example in example_ids])]
                probability = (
                    some["probability"] if "probability" in some else pd.Series(float("nan"), index=some.index)
                )
                rows = zip(some["id"].astype(str), some["prediction"], probability, some["score"], strict=True)
                answers[run_id] = {i: [str(a), _short(p), _short(s)] for i, a, p, s in rows}
        return scores, answers

    def examples(self) -> list[dict[str, Any]]:
        """Examples with their pictures as data; those that cannot be shown are named."""
        found, budget = [], MAX_PICTURE_BYTES
        for number, example in enumerate(self.json("examples/examples.json", list), start=1):
            where = f"{self.folder / 'examples/examples.json'}: example {number}"
            if (
                not isinstance(example, dict)
                or not isinstance(example.get("id"), int | str)
                or "question" not in example
            ):
                self.notes.append(f"{where} has no id or question; left out")
                continue
            picture = self._picture(str(example.get("image", "")), budget)
            if not picture:
                self.notes.append(f"{where}: its picture is missing, too large or of another kind")
            budget -= len(picture)
            gold = example.get("answers")
            answers = [str(answer) for answer in gold] if isinstance(gold, list) else []
            kept = {"id": example["id"], "question": str(example["question"]), "answers": answers}
            found.append(kept | {"picture": picture})
        return found

    def _picture(self, name: str, budget: int) -> str:
        path = self.folder / "examples" / name
        if not SAFE_NAME.fullmatch(name) or path.suffix not in PICTURES or not path.is_file():
            return ""
        data = base64.b64encode(path.read_bytes()).decode()
        return f"data:{PICTURES[path.suffix]};base64,{data}" if len(data) <= budget else ""


def _short(value: float) -> float | None:
    return None if pd.isna(value) else round(float(value), 3)
