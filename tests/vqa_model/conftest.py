import gzip
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vqa_model.picture_world import files as world_files
from vqa_model.picture_world.scenes import Settings

SMALL = Settings(train_pairs=40, val_pairs=8)
SAMPLE = Path(__file__).parent.parent / "data" / "vqa_v2"
SIZES = [(256, 192), (192, 256), (320, 213), (64, 64), (213, 320), (256, 256), (100, 75), (640, 480)]  # of pictures


@pytest.fixture(scope="session", autouse=True)
def _own_cache(cache):
    return cache


@pytest.fixture(scope="session")
def small_world(cache):
    """Folder of a small picture world in the official layout."""
    return world_files.world_folder(SMALL)


def make_picture(image_id):
    """Something like a photograph, always the same: large patches of colour under noise; every 20th is grey."""
    chance = np.random.default_rng(image_id)
    patches = Image.fromarray(chance.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    smooth = np.asarray(patches.resize(SIZES[image_id % len(SIZES)], Image.Resampling.BICUBIC), dtype=int)
    noisy = Image.fromarray((smooth + chance.integers(-20, 21, smooth.shape)).clip(0, 255).astype(np.uint8))
    return noisy.convert("L") if image_id % 20 == 0 else noisy


@pytest.fixture(scope="session")
def vqa_sample(tmp_path_factory):
    """Real questions and answers of VQA v2 (`data/vqa_v2/README.md`) in the official layout, on made-up pictures.

    What the official evaluator says of them lies beside, as official_eval_golden.json and official_norm_golden.json.
    """
    folder = tmp_path_factory.mktemp("sample") / "vqa_v2"
    folder.mkdir()
    for packed in SAMPLE.glob("*.json.gz"):
        (folder / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
    for part in ("train", "val"):
        rows = json.loads((folder / f"v2_OpenEnded_mscoco_{part}2014_questions.json").read_text("utf-8"))["questions"]
        (folder / f"{part}2014").mkdir()
        for image_id in {row["image_id"] for row in rows}:
            file = folder / f"{part}2014" / f"COCO_{part}2014_{image_id:012d}.jpg"
            make_picture(image_id).save(file, quality=90)
    return folder


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
