"""Writes the picture world in the official VQA v2 file layout, once, into the cache folder.

The reader then has one path for real and generated data, and users can open the files. The
folder's name carries a hash of the settings and of a sample of what they generate, so that a changed
generator never meets old files.
"""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from vqa_model.cache_folder import cache_folder, new_folder
from vqa_model.picture_world.questions import annotate, answer, ask_pair, wording
from vqa_model.picture_world.scenes import Settings, draw, scene_pairs

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

_INFO = {"description": "TuneMatrix picture world, in the layout of VQA v2.0", "version": "2.0", "year": 2026}
_FIRST_ID = {"train2014": 1, "val2014": 500_001}
Part = tuple[dict[int, "Image.Image"], list[dict[str, Any]], list[dict[str, Any]], list[list[int]]]


def make_part(settings: Settings, part: str, num_pairs: int) -> Part:
    """Generate pictures, questions, annotations and complementary pairs of "train2014" or "val2014"."""
    pictures: dict[int, Image.Image] = {}
    questions: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    complementary: list[list[int]] = []
    seed = settings.seed + (part != "train2014")
    for number, pair in enumerate(scene_pairs(settings, seed, num_pairs)):
        rng = random.Random(f"{seed}/{number}/questions")
        ids = [_FIRST_ID[part] + 2 * number + index for index in (0, 1)]
        for image_id, scene in zip(ids, pair, strict=True):
            pictures[image_id] = draw(scene, settings, rng)
        for index, question in enumerate(ask_pair(rng, settings, *pair)):
            complementary.append([image_id * 1000 + index for image_id in ids])
            for image_id, scene in zip(ids, pair, strict=True):
                truth = answer(question, scene)
                assert truth is not None
                head = {"image_id": image_id, "question_id": image_id * 1000 + index}
                questions.append(head | {"question": wording(question)})
                annotations.append(annotate(rng, settings, question, truth) | head)
    return pictures, questions, annotations, complementary


def _write_part(folder: Path, settings: Settings, part: str, num_pairs: int) -> None:
    pictures, questions, annotations, complementary = make_part(settings, part, num_pairs)
    head = {"info": _INFO, "license": {"name": "Apache-2.0"}, "data_subtype": part, "data_type": "mscoco"}
    files = {
        f"v2_OpenEnded_mscoco_{part}_questions.json": head | {"task_type": "Open-Ended", "questions": questions},
        f"v2_mscoco_{part}_annotations.json": head | {"annotations": annotations},
        f"v2_mscoco_{part}_complementary_pairs.json": complementary,
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    (folder / part).mkdir()
    for image_id, picture in pictures.items():
        picture.save(folder / part / f"COCO_{part}_{image_id:012d}.jpg", quality=settings.jpeg_quality)


def world_folder(settings: Settings | None = None) -> Path:
    """Folder of the generated world in the official layout; written when it is not there yet."""
    settings = settings or Settings()
    target = cache_folder() / f"picture-world-{world_hash(settings)[:12]}"
    if not target.is_dir():
        with new_folder(target) as draft:
            _write_part(draft, settings, "train2014", settings.train_pairs)
            _write_part(draft, settings, "val2014", settings.val_pairs)
    return target


def world_hash(settings: Settings, num_pairs: int = 8) -> str:
    """Hash the settings and what they generate for a few pairs, pixels included."""
    digest = hashlib.sha256(json.dumps(asdict(settings), sort_keys=True).encode())
    for part in _FIRST_ID:
        pictures, *texts = make_part(settings, part, num_pairs)
        digest.update(json.dumps(texts, sort_keys=True).encode())
        for picture in pictures.values():
            digest.update(picture.tobytes())
    return digest.hexdigest()
