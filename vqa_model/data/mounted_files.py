"""VQA v2 among mounted files: found in any nesting, and linked into the official layout.

Kaggle mounts every attached data set under /kaggle/input, unpacked as its uploader packed it: the questions in one
folder, the pictures as train2014/train2014 in another. Nothing is copied, nothing is written where the data lies.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vqa_model.cache_folder import cache_folder
from vqa_model.data.official_files import PARTS

if TYPE_CHECKING:
    import argparse

KAGGLE = Path("/kaggle/input")
MISSING = 1
TEXTS = {
    **{f"v2_OpenEnded_mscoco_{part}2014_questions.json": True for part in PARTS},
    **{f"v2_mscoco_{part}2014_annotations.json": True for part in PARTS},
    **{f"v2_mscoco_{part}2014_complementary_pairs.json": False for part in PARTS},
}  # name: whether it has to be there
PICTURES = [f"{part}2014" for part in PARTS]
REQUIRED = [name for name, needed in TEXTS.items() if needed] + PICTURES


class Location(NamedTuple):
    """Where a file or a folder of pictures lies; its size in bytes, or the number of its pictures."""

    size: int
    path: Path


def find(root: Path) -> dict[str, list[Location]]:
    """Every place of each official file and picture folder below `root`, by its official name; larger ones first.

    Links are followed, and a folder's names are looked at once, however many links lead to it.
    """
    found: dict[str, list[Location]] = {}
    seen: set[str] = set()
    for location, folders, files in os.walk(root, followlinks=True):
        folder, real = Path(location), os.path.realpath(location)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        for name in TEXTS.keys() & set(files):
            if (folder / name).is_file():  # not a link to nothing
                found.setdefault(name, []).append(Location((folder / name).stat().st_size, folder / name))
        for part in PARTS:
            count = sum(name.startswith(f"COCO_{part}2014_") and name.endswith(".jpg") for name in files)
            if count:
                found.setdefault(f"{part}2014", []).append(Location(count, folder))
        folders.sort()
    return {
        name: sorted(locations, key=lambda location: (-location.size, location.path))
        for name, locations in found.items()
    }


def link(root: Path, out: Path) -> list[str]:
    """Make the folder of links, say what was found where, give the names that are missing. ValueError for bad input."""
    if not root.is_dir():
        raise ValueError(f"--root {root}: no such folder; on Kaggle attach a VQA v2 data set first")
    if out.is_dir() and any(not path.is_symlink() for path in out.iterdir()):
        raise ValueError(f"--out {out}: holds files of its own; name an empty or a new folder")
    if out.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"--out {out}: lies in --root {root}, where nothing is written; name a folder elsewhere")
    found = find(root)
    out.mkdir(parents=True, exist_ok=True)
    for name in [*TEXTS, *PICTURES]:  # what an earlier call linked may lie elsewhere now, or nowhere
        (out / name).unlink(missing_ok=True)
    for name, (best, *others) in sorted(found.items()):
        (out / name).symlink_to(best.path.absolute(), target_is_directory=name in PICTURES)
        size = f"{best.size:,} pictures" if name in PICTURES else f"{best.size / 1e6:,.1f} MB"
        rest = ", ".join(str(other.path) for other in others)
        print(f"{name}: {best.path}, {size}" + (f" (the largest of {1 + len(others)}; not {rest})" if others else ""))
    for name in [name for name, needed in TEXTS.items() if not needed and name not in found]:
        print(f"not there, and not needed: {name}")
    missing = [name for name in REQUIRED if name not in found]
    for name in missing:
        what = f"pictures {name}/COCO_{name}_*.jpg" if name in PICTURES else name
        print(f"missing: {what}; attach a data set that has it, or: python -m vqa_model.download --out DIR")
    return missing


def mounted_data(root: Path = KAGGLE) -> Path:
    """Folder of links to what is mounted, for `--data kaggle`; made once. ValueError where something is missing."""
    out = cache_folder() / "kaggle"
    if all((out / name).exists() for name in REQUIRED):
        return out
    if missing := link(root, out):
        raise ValueError(f"--data kaggle: {', '.join(missing)} not found below {root}; attach a data set that has it")
    return out


def find_and_link(options: argparse.Namespace) -> int:
    """Do what the command says; 1 where something is missing."""
    return MISSING if link(options.root, options.out) else 0
