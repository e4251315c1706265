"""Decodes each picture once, to the size the vision tower wants, into one memory-mapped file.

Decoding and resizing a COCO picture costs 3.5 ms; a row of the map costs 0.01 ms. So a sweep
decodes once, in the parent, and every run gathers bytes. The map is keyed by what the files are
(name, size, time) and how they are cut; the hash of their contents is kept beside it.
"""

from __future__ import annotations

import hashlib
import json
import struct
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from vqa_model.cache import cache_folder, new_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_PROGRESS_AFTER_SECONDS = 2.0
# What PIL raises on damaged files, by format
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """How a picture becomes `size` × `size` RGB bytes, and how those are normalised in the model."""

    size: int
    resample: int = 2  # PIL's number of the filter: 2 is bilinear, 3 bicubic
    shortest_edge: int | None = None  # resize to this, then cut the centre; None squeezes the picture
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    @classmethod
    def from_preprocessor(cls, fields: Mapping[str, Any], model_size: int) -> ImageSettings:
        """Read a `preprocessor_config.json`; what it does not say is ViT's default."""
        size, crop = fields.get("size") or {}, fields.get("crop_size") or {}
        size = {"height": size} if isinstance(size, int) else size
        crop = {"height": crop} if isinstance(crop, int) else crop
        cut = bool(fields.get("do_center_crop")) and bool(crop)
        return cls(
            size=int(crop["height"] if cut else size.get("height", model_size)),
            resample=int(Image.Resampling(fields.get("resample", 2))),
            shortest_edge=int(size.get("shortest_edge") or size.get("height") or 0) or None if cut else None,
            mean=_three_numbers(fields.get("image_mean") or cls.mean),
            std=_three_numbers(fields.get("image_std") or cls.std),
        )


def _three_numbers(values: Sequence[float]) -> tuple[float, ...]:
    red, green, blue = map(float, values)
    return red, green, blue


def load_picture(path: Path) -> Image.Image:
    """Open a picture as RGB, whatever its mode (grey, CMYK, palette); ValueError names a broken file."""
    try:
        with Image.open(path) as picture:
            rgb: Image.Image = picture.convert("RGB")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(f"{path}: picture is missing; put it there or use --skip-bad-images") from error
    except _BROKEN as error:
        raise ValueError(f"{path}: broken picture ({error}); replace it or use --skip-bad-images") from error
    return rgb


def fit_picture(picture: Image.Image, settings: ImageSettings) -> NDArray[np.uint8]:
    """Resize (and cut) to channels-first bytes (3, size, size)."""
    resample = Image.Resampling(settings.resample)
    if settings.shortest_edge is None:
        picture = picture.resize((settings.size, settings.size), resample)
    else:
        scale = settings.shortest_edge / min(picture.size)
        width, height = (max(1, round(scale * edge)) for edge in picture.size)
        left, top = (width - settings.size) // 2, (height - settings.size) // 2
        picture = picture.resize((width, height), resample).crop((left, top, left + settings.size, top + settings.size))
    pixels: NDArray[np.uint8] = np.asarray(picture).transpose(2, 0, 1)
    return pixels


@dataclass(frozen=True)
class DecodedPictures:
    """Decoded pictures: bytes (pictures, 3, size, size), rows by name, and a hash of the files' contents."""

    pixels: NDArray[np.uint8]
    content_hash: str
    bad: frozenset[str]


def _key(paths: Sequence[Path], settings: ImageSettings, *, skip_bad: bool) -> str:
    cut = {**asdict(settings), "mean": None, "std": None, "skip_bad": skip_bad}
    digest = hashlib.sha256(json.dumps(cut, sort_keys=True).encode())
    for path in paths:
        try:
            stat = path.stat()
        except OSError:
            digest.update(f"{path.name} missing\n".encode())
        else:
            digest.update(f"{path.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def decode_pictures(paths: Sequence[Path], settings: ImageSettings, *, skip_bad: bool) -> DecodedPictures:
    """Decode files into the cache, or read them back; row i is `paths[i]`, zeros where it was bad."""
    folder = cache_folder() / f"pictures-{_key(paths, settings, skip_bad=skip_bad)}"
    if not folder.is_dir():
        with new_folder(folder) as draft:
            _decode(paths, settings, draft, skip_bad=skip_bad)
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    pixels = np.load(folder / "pixels.npy", mmap_mode="r")
    return DecodedPictures(pixels, facts["content_hash"], frozenset(facts["bad"]))


def _decode(paths: Sequence[Path], settings: ImageSettings, draft: Path, *, skip_bad: bool) -> None:
    shape = (len(paths), 3, settings.size, settings.size)
    pixels = np.lib.format.open_memmap(draft / "pixels.npy", mode="w+", dtype=np.uint8, shape=shape)
    digest, bad, start = hashlib.sha256(), [], time.perf_counter()
    for row, path in enumerate(paths):
        try:
            pixels[row] = fit_picture(load_picture(path), settings)
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        except ValueError:
            if not skip_bad:
                raise
            bad.append(path.name)
        if row % 1000 == 999 and time.perf_counter() - start > _PROGRESS_AFTER_SECONDS:  # noqa: PLR2004
            print(f"decoding pictures: {row + 1} of {len(paths)}", file=sys.stderr)
    if bad:
        print(f"skipped {len(bad)} missing or broken pictures, first {bad[0]}", file=sys.stderr)
    pixels.flush()
    (draft / "facts.json").write_text(json.dumps({"content_hash": digest.hexdigest(), "bad": bad}), encoding="utf-8")
