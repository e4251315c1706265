import importlib.util
import json
from pathlib import Path

import pytest
from PIL import Image

from vqa_model.picture_world import files as world_files
from vqa_model.picture_world.scenes import Settings

SMALL = Settings(train_pairs=40, val_pairs=8)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(cache):
    return cache


@pytest.fixture(scope="session")
def small_world(cache):
    """Folder of a small picture world in the official layout."""
    return world_files.world_folder(SMALL)


@pytest.fixture(scope="session")
def hub():
    """Makes checkpoint folders as the hub has them (`hub.py`)."""
    spec = importlib.util.spec_from_file_location("hub", Path(__file__).parent / "hub.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_part(folder, name, questions):
    """Write one part of a made-up data set: `questions` are (question_id, image_id, text, answers)."""
    folder.mkdir(parents=True, exist_ok=True)
    asked = [{"question_id": q, "image_id": i, "question": text} for q, i, text, _ in questions]
    annotated = [
        {
            "question_id": q,
            "image_id": i,
            "multiple_choice_answer": answers[0],
            "answer_type": "other",
            "question_type": "what",
            "answers": [{"answer": a, "answer_id": n} for n, a in enumerate(answers, 1)],
        }
        for q, i, _, answers in questions
    ]
    (folder / f"v2_OpenEnded_mscoco_{name}2014_questions.json").write_text(json.dumps({"questions": asked}))
    (folder / f"v2_mscoco_{name}2014_annotations.json").write_text(json.dumps({"annotations": annotated}))
    pictures = folder / f"{name}2014"
    pictures.mkdir(exist_ok=True)
    for image_id in {i for _, i, _, _ in questions}:
        shade = Image.new("RGB", (20, 16), (image_id % 256, 90, 120))
        shade.save(pictures / f"COCO_{name}2014_{image_id:012d}.jpg")


@pytest.fixture
def data(tmp_path):
    """A tiny sound data set: 30 training and 4 validation pictures."""
    folder = tmp_path / "data"
    for name, first, count in (("train", 1, 30), ("val", 101, 4)):
        rows = [
            (10 * i + k, i, "what is this", [word] * 10)
            for i in range(first, first + count)
            for k, word in enumerate("ab")
        ]
        write_part(folder, name, rows)
    return folder


@pytest.fixture
def write():
    """`write_part`, for tests that need other questions than `data` has."""
    return write_part
