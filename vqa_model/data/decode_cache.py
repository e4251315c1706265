"""Decodes each picture once into one memory-mapped file that every run of a sweep gathers bytes from.

Decoding and resizing a COCO picture costs 3.5 ms, a row of the map 0.01 ms. The map is keyed by what
the files are (name, size, time) and how they are cut; a hash of their contents is kept beside it.
Pictures are decoded in blocks. A finished block leaves a note in the draft, so whoever comes after a
killed process goes on where it stopped. Nobody locks: the same picture always gives the same bytes,
so processes that decode the same pictures at once share one draft, each in an order of its own, and
at worst write a block twice. Threads are enough, as Pillow decodes and resizes without holding Python.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vqa_model.cache_folder import cache_folder, new_folder
from vqa_model.data.pictures import ImageSettings, fit_picture, read_picture

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

BLOCK = 64
_PROGRESS_EVERY_SECONDS = 2.0


@dataclass(frozen=True)
class DecodedPictures:
    """Decoded pictures: bytes (pictures, 3, size, size), rows by name, and a hash of the files' contents."""

    pixels: NDArray[np.uint8]
    content_hash: str
    bad: frozenset[str]


def decode_pictures(
    paths: Sequence[Path], settings: ImageSettings, *, skip_bad: bool, threads: int | None = None
) -> DecodedPictures:
    """Decode files into the cache, or read them back; row i is `paths[i]`, zeros where it was bad.

    threads: one per processor when not given. ValueError names the first missing or broken picture.
    """
    folder = cache_folder() / f"pictures-{_key(paths, settings)}"
    if not folder.is_dir():
        _Draft(folder, paths, settings, skip_bad).finish(threads or _processors())
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    bad: dict[str, str] = facts["bad"]
    for path in paths if bad else ():
        if path.name in bad and not skip_bad:
            raise ValueError(f"{path}: {bad[path.name]}")
    if bad:
        print(f"skipped {len(bad)} missing or broken pictures, first {next(iter(bad))}", file=sys.stderr)
    pixels = np.load(folder / "pixels.npy", mmap_mode="r")
    return DecodedPictures(pixels, facts["content_hash"], frozenset(bad))


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _key(paths: Sequence[Path], settings: ImageSettings) -> str:
    cut = {**asdict(settings), "mean": None, "std": None}
    digest = hashlib.sha256(json.dumps(cut, sort_keys=True).encode())
    for path in paths:
        try:
            stat = path.stat()
        except OSError:
            digest.update(f"{path.name} missing\n".encode())
        else:
            digest.update(f"{path.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class _Draft:
    """The pictures on their way to `target`: pixels.npy at its full size, and a note per finished block."""

    target: Path
    paths: Sequence[Path]
    settings: ImageSettings
    skip_bad: bool

    @property
    def folder(self) -> Path:
        return self.target.parent / f".{self.target.name}-draft"

    @property
    def num_blocks(self) -> int:
        return math.ceil(len(self.paths) / BLOCK)

    def note(self, block: int) -> Path:
        return self.folder / "notes" / f"{block}.json"

    def finish(self, threads: int) -> None:
        """Decode what no one has decoded yet, then move the draft into place."""
        self._create()
        with suppress(FileNotFoundError):  # another process moved the draft into place
            with (self.folder / "pixels.npy").open("r+b", buffering=0) as pixels:
                self._decode_all(pixels.fileno(), threads)
            self._publish()
        if self.target.is_dir():
            shutil.rmtree(self.target / "notes", ignore_errors=True)
            shutil.rmtree(self.folder, ignore_errors=True)

    def _create(self) -> None:
        if self.folder.is_dir():
            return
        shape = (len(self.paths), 3, self.settings.size, self.settings.size)
        with new_folder(self.folder) as draft:
            np.lib.format.open_memmap(draft / "pixels.npy", mode="w+", dtype=np.uint8, shape=shape)
            (draft / "notes").mkdir()

    def _decode_all(self, pixels: int, threads: int) -> None:
        blocks = [block for block in range(self.num_blocks) if not self.note(block).is_file()]
        random.Random(os.getpid()).shuffle(blocks)
        start = shown = time.perf_counter()
        pool = ThreadPoolExecutor(threads)
        try:
            jobs = [pool.submit(self._decode, block, pixels) for block in blocks]
            for done, job in enumerate(as_completed(jobs), 1):
                job.result()
                if (now := time.perf_counter()) - shown > _PROGRESS_EVERY_SECONDS:
                    shown, left = now, (now - start) * (len(blocks) / done - 1)
                    rows = len(self.paths) - (len(blocks) - done) * BLOCK
                    print(f"decoding pictures: {rows} of {len(self.paths)}, {left:.0f} s left", file=sys.stderr)
        finally:
            pool.shutdown(cancel_futures=True)

    def _decode(self, block: int, pixels: int) -> None:
        """Decode one block, write its rows, then its note: content hashes, None where a picture is bad."""
        if self.note(block).is_file() or self.target.is_dir():
            return
        paths = self.paths[block * BLOCK : (block + 1) * BLOCK]
        rows = np.zeros((len(paths), 3, self.settings.size, self.settings.size), dtype=np.uint8)
        hashes: list[str | None] = [None] * len(paths)
        bad: dict[str, str] = {}
        for index, path in enumerate(paths):
            try:
                content, picture = read_picture(path)
                rows[index] = fit_picture(picture, self.settings)
                hashes[index] = hashlib.sha256(content).hexdigest()
            except ValueError as error:
                if not self.skip_bad:
                    raise
                bad[path.name] = str(error).removeprefix(f"{path}: ")
        _write_at(pixels, rows, os.fstat(pixels).st_size - (len(self.paths) - block * BLOCK) * rows[0].nbytes)
        _write_json(self.note(block), {"hashes": hashes, "bad": bad})

    def _publish(self) -> None:
        """Join the notes and rename the draft; FileNotFoundError when another process was faster."""
        digest = hashlib.sha256()
        bad: dict[str, str] = {}
        for block in range(self.num_blocks):
            note = json.loads(self.note(block).read_text(encoding="utf-8"))
            for content_hash in filter(None, note["hashes"]):
                digest.update(bytes.fromhex(content_hash))
            bad |= note["bad"]
        _write_json(self.folder / "facts.json", {"content_hash": digest.hexdigest(), "bad": bad})
        with suppress(OSError):  # it is there already: another process made the same bytes
            self.folder.rename(self.target)


def _write_at(file: int, rows: NDArray[np.uint8], start: int) -> None:
    """Write all rows at byte `start` and wait until they are on disk, so that a note never promises too much."""
    left = rows.data.cast("B")
    while left:
        written = os.pwrite(file, left, start)
        left, start = left[written:], start + written
    os.fsync(file)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    partial = path.with_name(f".{path.name}-{os.getpid()}")
    partial.write_text(json.dumps(content), encoding="utf-8")
    partial.replace(path)
