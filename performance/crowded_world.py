"""The picture world with VQA v2's 5.36 questions per picture and COCO's 640 × 480 pixels, so that decoding costs."""

from pathlib import Path

from PIL import Image

from vqa_model.picture_world.files import world_folder
from vqa_model.picture_world.scenes import Settings

SIZE = (640, 480)
CROWDED = {"draws": (6, 11)}  # of which some find nothing to ask


def crowded_world(folder: Path, pairs: int) -> Path:
    """Write the world into `folder` in the official layout, `pairs` of training pictures, and give the folder."""
    small = world_folder(Settings(train_pairs=pairs, val_pairs=max(2, pairs // 10), **CROWDED))
    for file in sorted(small.rglob("*")):
        target = folder / file.relative_to(small)
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".jpg":
            with Image.open(file) as picture:
                picture.resize(SIZE, Image.Resampling.BICUBIC).save(target, quality=92)
        elif file.is_file():
            target.write_bytes(file.read_bytes())
    return folder
