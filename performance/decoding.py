"""Pictures per second: the decode cache against transformers' ViTImageProcessor, in turns on the same files.

python performance/decoding.py [--pictures FOLDER] [--quick]

Without a folder, pictures of COCO's usual size (640 × 480) are generated. Ours includes what the cache
does besides: hashing every file, writing the map to disk, making and moving the folder. Theirs ends
with the array in memory. Without torchvision the Pillow variant is the only one transformers has; it
is given one picture at a time and 64, and also without rescaling and normalising, which the cache
leaves to the model.
"""

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from measuring import in_turns, ratios, save, show
from PIL import Image
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from vqa_model.data.decode_cache import BLOCK, decode_pictures
from vqa_model.data.pictures import ImageSettings, fit_picture, read_picture

SIZE, BATCH = 224, 64


def generate(folder: Path, count: int) -> list[Path]:
    """Write JPEGs of 640 × 480 whose size in bytes is that of photographs of COCO (about 160 KB)."""
    rng = np.random.default_rng(0)
    for number in range(count):
        picture = np.zeros((480, 640, 3), dtype=np.float32)
        for cells, strength in ((6, 90), (24, 60), (80, 40), (320, 45)):
            noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
            coarse = np.asarray(noise.resize((640, 480), Image.Resampling.BICUBIC))
            picture += coarse * (strength / 215)
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{number:06d}.jpg", quality=92)
    return sorted(folder.iterdir())


def ours(paths: Sequence[Path], threads: int) -> None:
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TUNEMATRIX_CACHE"] = cache
        decode_pictures(paths, ImageSettings(size=SIZE), skip_bad=False, threads=threads)


def theirs(paths: Sequence[Path], processor: ViTImageProcessorPil, batch: int) -> None:
    for start in range(0, len(paths), batch):
        processor([Image.open(path).convert("RGB") for path in paths[start : start + batch]])


def largest_difference(paths: Sequence[Path]) -> int:
    """Largest difference of a pixel from transformers', of 255."""
    bare = ViTImageProcessorPil(do_rescale=False, do_normalize=False)
    settings = ImageSettings.from_preprocessor(bare.to_dict(), SIZE)
    pairs = ((fit_picture(read_picture(path)[1], settings), Image.open(path).convert("RGB")) for path in paths)
    return max(int(abs(pixels.astype(int) - bare(picture)["pixel_values"][0]).max()) for pixels, picture in pairs)


def compare(paths: list[Path], rounds: int) -> dict[str, object]:
    processor, bare = ViTImageProcessorPil(), ViTImageProcessorPil(do_rescale=False, do_normalize=False)
    seconds = in_turns(
        {
            "theirs": lambda: theirs(paths, processor, 1),
            "theirs, batches": lambda: theirs(paths, processor, BATCH),
            "theirs, bytes only": lambda: theirs(paths, bare, 1),
            "ours, 1 thread": lambda: ours(paths, 1),
            "ours, 2 threads": lambda: ours(paths, 2),
        },
        rounds,
    )
    kilobytes = sum(path.stat().st_size for path in paths) / len(paths) / 1000
    print(f"\n{len(paths)} pictures of {kilobytes:.0f} KB\n")
    against = {way: {their: ratios(seconds, their, way) for their in seconds if their[0] == "t"} for way in seconds}
    columns = [*against["theirs"]]
    show(
        ["", "pictures/s", *(f"× {name}" for name in columns)],
        [
            [way, f"{len(paths) / min(times):.0f}", *(f"{against[way][name]['median']:.2f}" for name in columns)]
            for way, times in seconds.items()
        ],
    )
    difference = largest_difference(paths[::10])
    print(f"\nLargest difference of a pixel: {difference} of 255")
    return {
        "pictures": len(paths),
        "kilobytes": kilobytes,
        "seconds": seconds,
        "times_faster": {way: against[way] for way in seconds if way.startswith("ours")},
        "largest_pixel_difference": difference,
    }


def main(pictures: Path | None, *, quick: bool) -> None:
    count, rounds = (2 * BLOCK, 2) if quick else (4 * BLOCK, 9)
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        figures["generated, 640 × 480"] = compare(generate(Path(folder), count), rounds)
    if pictures:
        found = sorted(path for path in pictures.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
        figures[f"folder {pictures.name}"] = compare(found[:: max(1, len(found) // count)][:count], rounds)
    save("decoding", {"sources": figures})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, help="folder of real pictures to time as well")
    parser.add_argument("--quick", action="store_true", help="few pictures, two rounds: does it run?")
    main(**vars(parser.parse_args()))
