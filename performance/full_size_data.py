"""Writes a made-up data set with all of VQA v2's numbers: 443,757 + 214,354 questions in the official files.

Answers are spread as people's are (a few words make most, a long tail comes once), a third of the questions
are agreed on to the letter, questions have the lengths of real ones, and each question's balanced partner is on
one of 24 like pictures, as the authors of VQA v2 chose theirs. 150,000 texts and as many sets of ten answers are
drawn from. Pictures are a few files under many names.
"""

import json
import random
from functools import cache
from pathlib import Path

from PIL import Image

PICTURES = {"train": 82_783, "val": 40_504}
QUESTIONS = {"train": 443_757, "val": 214_354}
FIRST_PICTURE = {"train": 1, "val": 300_000}
KINDS = ("yes/no", "number", "other")
KIND_SHARES = (0.38, 0.13, 0.49)
AGREED, RIGHT = 0.35, 0.6  # shares: questions that all ten agree on; annotators who say the truth where they do not
PAIRED, LIKE = 0.9, 24  # share of the questions with a partner; like pictures that the partner's is one of
LOG10_RANK = (2.35, 1.25)  # mean and deviation of the ranks of answers people give (60,000 questions of VQA v2)
FILES = 64
DIFFERENT = 150_000  # texts, and annotations


def made_words(rng: random.Random, count: int) -> list[str]:
    """Words of one to three syllables."""
    parts = ["ka", "ro", "min", "te", "sul", "ba", "ne", "pho", "dri", "lo", "wen", "ti"]
    return ["".join(rng.choices(parts, k=rng.randint(1, 3))) for _ in range(count)]


def vocabulary(rng: random.Random, kind: str) -> list[str]:
    """Answers of one type, the most frequent first."""
    if kind == "yes/no":
        return ["yes", "no"] * 200 + ["Yes", "no.", "not sure", "maybe", "yes, it is"] * 3
    if kind == "number":
        return ["2", "1", "3", "0", "4"] * 50 + ["two", "one", "none", "lot", "10+", "1,000", *map(str, range(5, 900))]
    words = made_words(rng, 9_000)
    shapes = ("{}", "{} {}", "a {}", "the {} {}", "{}-{}", "{}'s {}", "{}, {} {}", "{} & {}", "{} {} {} {}", "{} (no)")
    made = (rng.choice(shapes).format(*rng.choices(words, k=4)) for _ in range(400_000))
    return list(dict.fromkeys(made))


def pick(rng: random.Random, answers: list[str]) -> str:
    """Draw an answer by its rank."""
    return answers[int(min(10 ** rng.gauss(*LOG10_RANK), len(answers) - 1))]


@cache
def texts() -> list[str]:
    """JSON of questions' words, as long as those of real ones."""
    rng = random.Random("texts")
    words = made_words(rng, 9_000)
    starts = ("What is the", "Is this a", "How many", "What color is the", "Are there any", "Where is the")
    lengths = (min(17, 1 + int(rng.expovariate(0.5))) for _ in range(DIFFERENT))
    return [json.dumps(" ".join([rng.choice(starts), *rng.choices(words, k=length)]) + "?") for length in lengths]


@cache
def annotations() -> list[str]:
    """JSON of annotations, the end of the record, without the ids."""
    rng = random.Random("annotations")
    known = {kind: vocabulary(rng, kind) for kind in KINDS}
    made = []
    for kind in rng.choices(KINDS, KIND_SHARES, k=DIFFERENT):
        truth, agree = pick(rng, known[kind]), rng.random() < AGREED
        said = [truth if agree or rng.random() < RIGHT else pick(rng, known[kind]) for _ in range(10)]
        fields = {
            "question_type": "what is the",
            "multiple_choice_answer": truth,
            "answers": [{"answer": word, "answer_confidence": "yes", "answer_id": n} for n, word in enumerate(said, 1)],
            "answer_type": kind,
        }
        made.append(json.dumps(fields)[1:])
    return made


def _pairs(rng: random.Random, asked: list[list[int]]) -> list[list[int]]:
    """Each question with one on a like picture, none twice; like pictures stand near each other."""
    free = {number: list(ids) for number, ids in enumerate(asked)}
    pairs = []
    for number, ids in enumerate(asked):
        for question in ids:
            if question not in free[number] or rng.random() > PAIRED:
                continue
            other = number + rng.choice([step for step in range(-LIKE // 2, LIKE // 2 + 1) if step])
            if 0 <= other < len(asked) and free[other]:
                free[number].remove(question)
                pairs.append([question, free[other].pop()])
    return pairs


def write_part(folder: Path, name: str, share: float = 1.0) -> None:
    """Write the three files of one part; `share` of the official numbers."""
    rng = random.Random(name)
    ids = picture_ids(name, share)
    owners = sorted([*range(len(ids)), *rng.choices(range(len(ids)), k=round(share * QUESTIONS[name]) - len(ids))])
    asked: list[list[int]] = [[] for _ in ids]
    heads = []
    for owner in owners:
        question = 1000 * ids[owner] + len(asked[owner])
        asked[owner].append(question)
        heads.append(f'{{"image_id": {ids[owner]}, "question_id": {question}')
    files = {
        "OpenEnded_mscoco": ("questions", [f'"question": {text}}}' for text in texts()]),
        "mscoco": ("annotations", annotations()),
    }
    for what, (key, ends) in files.items():
        records = (f"{head}, {rng.choice(ends)}" for head in heads)
        content = f'{{"info": {{}}, "data_subtype": "{name}2014", "{key}": [{", ".join(records)}]}}'
        (folder / f"v2_{what}_{name}2014_{key}.json").write_text(content)
    (folder / f"v2_mscoco_{name}2014_complementary_pairs.json").write_text(json.dumps(_pairs(rng, asked)))


def picture_ids(name: str, share: float) -> list[int]:
    """Ids of a part's pictures."""
    return [FIRST_PICTURE[name] + 3 * number for number in range(round(share * PICTURES[name]))]


def write_pictures(folder: Path, name: str, share: float = 1.0) -> None:
    """Write one part's pictures: a few files under many names."""
    pictures, ids = folder / f"{name}2014", picture_ids(name, share)
    files = [pictures / f"COCO_{name}2014_{image_id:012d}.jpg" for image_id in ids]
    pictures.mkdir()
    for place, file in enumerate(files):
        if place < FILES:
            Image.effect_noise((96, 64), 40 + place).convert("RGB").save(file)
        else:
            file.hardlink_to(files[place % FILES])


def write_full_size(folder: Path, share: float = 1.0) -> Path:
    """Write both parts into `folder`; gives the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in PICTURES:
        write_part(folder, name, share)
        write_pictures(folder, name, share)
    return folder
