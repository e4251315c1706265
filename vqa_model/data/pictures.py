"""How a picture file becomes the bytes that the vision tower wants: read, made RGB, resized or cut.

The pixels are those of transformers' own image processors, without their detours through floats
and copies: normalising is the model's first step, where it costs a multiplication on the device.
"""

from __future__ import annotations

import io
import struct
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

# What PIL raises on damaged files, by format
BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
_RATIO_KEEPERS = ("Bit", "CLIP")  # image processors to which one number as size means the shortest edge


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """How a picture becomes `size` × `size` RGB bytes, and how those are normalised in the model."""

    size: int
    resample: int = 2  # PIL's number of the filter: 2 is bilinear, 3 bicubic
    shortest_edge: int | None = None  # resize to this, then cut the centre; None squeezes the picture to `size`
    keep_ratio: bool = True  # False squeezes it to a square of `shortest_edge` before the cut, as DeiT does
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    @classmethod
    def from_preprocessor(cls, fields: Mapping[str, Any], model_size: int, image_size: int = 0) -> ImageSettings:
        """Read a `preprocessor_config.json`; what it does not say is ViT's default.

        image_size: replaces its size; the edge that pictures are resized to before a cut keeps its ratio to it.
        """
        kind = str(fields.get("image_processor_type") or fields.get("feature_extractor_type"))
        size, crop = fields.get("size") or {}, fields.get("crop_size") or {}
        size = {"shortest_edge" if kind.startswith(_RATIO_KEEPERS) else "height": size} if type(size) is int else size
        crop = {"height": crop} if isinstance(crop, int) else crop
        cut = bool(fields.get("do_center_crop")) and bool(crop)
        own = int(crop["height"] if cut else size.get("height", model_size))
        edge = int(size.get("shortest_edge") or size.get("height") or 0) if cut else 0
        return cls(
            size=image_size or own,
            resample=int(Image.Resampling(fields.get("resample", 2))),
            shortest_edge=round(edge * (image_size or own) / own) or None,
            keep_ratio=not edge or "shortest_edge" in size,
            mean=_three_numbers(fields.get("image_mean") or cls.mean),
            std=_three_numbers(fields.get("image_std") or cls.std),
        )

    def facts(self) -> dict[str, Any]:
        """Fields for a fingerprint; `keep_ratio` only where it says something."""
        return {name: value for name, value in asdict(self).items() if name != "keep_ratio" or not value}


def _three_numbers(values: Sequence[float]) -> tuple[float, ...]:
    red, green, blue = map(float, values)
    return red, green, blue


def read_picture(path: Path) -> tuple[bytes, Image.Image]:
    """Read a file's bytes and the RGB picture in them, whatever its mode (grey, CMYK, palette).

    ValueError names a missing or broken file.
    """
    try:
        content = path.read_bytes()
        picture = Image.open(io.BytesIO(content))
        picture.load()
        return content, picture if picture.mode == "RGB" else picture.convert("RGB")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(f"{path}: picture is missing; put it there or use --skip-bad-images") from error
    except BROKEN as error:
        raise ValueError(f"{path}: broken picture ({error}); replace it or use --skip-bad-images") from error


def fit_picture(picture: Image.Image, settings: ImageSettings) -> NDArray[np.uint8]:
    """Resize (and cut) to channels-first bytes (3, size, size)."""
    resample, edge = Image.Resampling(settings.resample), settings.shortest_edge
    if edge is None:
        picture = picture.resize((settings.size, settings.size), resample)
    else:
        shortest = min(picture.size)
        width, height = (int(edge * side / shortest) if settings.keep_ratio else edge for side in picture.size)
        left, top = (width - settings.size) // 2, (height - settings.size) // 2
        picture = picture.resize((width, height), resample).crop((left, top, left + settings.size, top + settings.size))
    pixels: NDArray[np.uint8] = np.asarray(picture).transpose(2, 0, 1)
    return pixels
