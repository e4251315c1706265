"""Seconds to score a whole VQA v2 validation set, 214,354 answers, in one process.

python performance/evaluation.py [--quick]

Questions and predictions are generated and written in the official layout; reading them back is timed
apart. Answers are as people give them: a few words make most of them, a long tail comes once, and
annotators disagree on two questions of three. Scores of single labels (`classic`) are timed as well.
"""

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from full_size_data import write_part
from measuring import in_turns, save, show

from bench.worker.scores import classification_scores
from vqa_model.data.official_accuracy import evaluate
from vqa_model.data.official_files import Part, read_part
from vqa_model.data.official_normalisation import normalise
from vqa_model.data.questions import QuestionsById

ROUNDS = 7
RIGHT = 0.5  # share of the predictions that are the majority answer


def guess(part: Part) -> list[dict[str, Any]]:
    """A prediction for each question: the majority answer, or another that somebody gave somewhere."""
    rng, known = random.Random(0), part.questions.pools.forms
    truths = [known[form] for form in part.questions.majority_forms.tolist()]
    guesses = [truth if rng.random() < RIGHT else rng.choice(known) for truth in truths]
    rows = zip(part.questions.ids.tolist(), guesses, truths, strict=True)
    return [{"id": number, "prediction": said, "target": truth, "probability": 0.5} for number, said, truth in rows]


def main(*, quick: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        write_part(Path(name), "val", 0.01 if quick else 1.0)
        start = time.perf_counter()
        part = read_part(Path(name), "val")
        reading = time.perf_counter() - start
    predictions, questions = guess(part), QuestionsById([part.questions])
    distinct = len(part.questions.pools.answers)

    def official() -> None:
        normalise.cache_clear()  # every round starts as a process does
        evaluate(predictions, questions)

    seconds = in_turns(
        {"official accuracy": official, "classic scores": lambda: classification_scores(predictions)},
        1 if quick else ROUNDS,
        warm_up=False,
    )
    print(f"{len(predictions)} answers against {10 * len(predictions)}, {distinct} of them distinct\n")
    rows = [["reading the files", f"{reading:.2f}", ""]]
    rows += [[name, f"{statistics.median(times):.2f}", f"{max(times):.2f}"] for name, times in seconds.items()]
    show(["", "median s", "slowest s"], rows)
    figures = {"answers": len(predictions), "distinct_answers": distinct, "reading_seconds": reading}
    save("evaluation", figures | {"seconds": seconds})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a hundredth of the questions, once: does it run?")
    main(**vars(parser.parse_args()))
