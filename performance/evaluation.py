"""Seconds to score a whole VQA v2 validation set, 214,354 answers, in one process.

python performance/evaluation.py [--quick]

Questions and predictions are generated and written in the official layout; reading them back is timed
apart. Answers are as people give them: a few words make most of them, a long tail comes once, and
annotators disagree on two questions of three. Scores of single labels (`classic`) are timed as well.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import in_turns, save, show

from bench.scores import classification_scores
from vqa_model.vqa_files import Part, read_part
from vqa_model.vqa_score import evaluate, normalise

QUESTIONS, TYPES = 214_354, (("yes/no", 0.38), ("number", 0.13), ("other", 0.49))
LOG10_RANK = (2.35, 1.25)  # mean and deviation
ROUNDS = 7


def vocabulary(rng: random.Random, kind: str) -> list[str]:
    """Answers of one type, the most frequent first."""
    if kind == "yes/no":
        return ["yes", "no"] * 200 + ["Yes", "no.", "not sure", "maybe", "yes, it is"] * 3
    if kind == "number":
        return ["2", "1", "3", "0", "4"] * 50 + ["two", "one", "none", "lot", "10+", "1,000", *map(str, range(5, 900))]
    parts = ["ka", "ro", "min", "te", "sul", "ba", "ne", "pho", "dri", "lo", "wen", "ti"]
    words = ["".join(rng.choices(parts, k=rng.randint(1, 3))) for _ in range(9_000)]
    shapes = ("{}", "{} {}", "a {}", "the {} {}", "{}-{}", "{}'s {}", "{}, {} {}", "{} & {}", "{} {} {} {}", "{} (no)")
    made = (rng.choice(shapes).format(*rng.choices(words, k=4)) for _ in range(400_000))
    return list(dict.fromkeys(made))


def pick(rng: random.Random, answers: list[str]) -> str:
    """Draw an answer; the ranks of those that people give spread like this (60,000 questions of VQA v2)."""
    return answers[int(min(10 ** rng.gauss(*LOG10_RANK), len(answers) - 1))]


def write(folder: Path, count: int) -> Path:
    """Write questions, annotations and a file of predictions; its path."""
    rng = random.Random(0)
    known = {kind: vocabulary(rng, kind) for kind, _ in TYPES}
    kinds = rng.choices([kind for kind, _ in TYPES], [share for _, share in TYPES], k=count)
    questions, annotations, predictions = [], [], []
    for number, kind in enumerate(kinds):
        truth = pick(rng, known[kind])
        agree = rng.random() < 0.35  # noqa: PLR2004 -- the share of real questions on which all ten agree
        answers = [truth if agree or rng.random() < 0.6 else pick(rng, known[kind]) for _ in range(10)]  # noqa: PLR2004
        head = {"question_id": number * 10 + 1, "image_id": number // 5}
        questions.append({**head, "question": "what is this?"})
        listed = [{"answer": answer, "answer_id": place} for place, answer in enumerate(answers, 1)]
        annotations.append({**head, "multiple_choice_answer": truth, "answer_type": kind, "answers": listed})
        guess = truth if rng.random() < 0.5 else pick(rng, known[kind])  # noqa: PLR2004
        row = {"id": head["question_id"], "prediction": normalise(guess), "target": normalise(truth)}
        predictions.append(row | {"probability": 0.5})
    (folder / "v2_OpenEnded_mscoco_val2014_questions.json").write_text(json.dumps({"questions": questions}))
    (folder / "v2_mscoco_val2014_annotations.json").write_text(json.dumps({"annotations": annotations}))
    file = folder / "predictions.json"
    file.write_text(json.dumps(predictions))
    return file


def read(folder: Path, file: Path) -> tuple[Part, list[dict[str, Any]]]:
    return read_part(folder, "val"), json.loads(file.read_text())


def main(*, quick: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        file = write(Path(name), QUESTIONS // 100 if quick else QUESTIONS)
        start = time.perf_counter()
        part, predictions = read(Path(name), file)
        reading = time.perf_counter() - start
    questions = {question.id: question for question in part.questions}
    distinct = len({answer for question in part.questions for answer in question.answers})

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
