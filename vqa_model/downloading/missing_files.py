"""What a download still has to fetch: compares a folder with the sample that is wanted in it.

A text is sound when it ends as JSON does and has the size noted by the last whole download; `verify` compares its
digest, too. A picture is sound when it ends as a JPEG does; `verify` decodes it.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqa_model.data.official_files import DOWNLOAD_FILE, read_part
from vqa_model.downloading.fetcher import Job
from vqa_model.downloading.integrity import accept_picture, decodes, looks_complete, partial_path, unpack
from vqa_model.downloading.official_files import (
    PICTURE_BYTES,
    PICTURES,
    UNPACKED,
    Source,
    TextArchive,
    picture_member,
    text_path,
)
from vqa_model.downloading.progress import size_text
from vqa_model.downloading.response_headers import digest_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_SPARE_BYTES = 100_000_000


def sampled_images(folder: Path, part: str, fraction: float, seed: int) -> list[int]:
    """Image ids of the task's own sample of a part; ValueError when the part's texts cannot be read."""
    return sorted(read_part(folder, part).choose(fraction, seed))


def last_download(folder: Path) -> dict[str, Any]:
    """What the last whole download noted; empty where there was none."""
    try:
        found = json.loads((folder / DOWNLOAD_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def text_facts(path: Path) -> dict[str, Any]:
    """Size and digest of a text, as noted in download.json."""
    return {"bytes": path.stat().st_size, "sha256": digest_of(path, "sha256")}


def text_is_intact(path: Path, recorded: Mapping[str, Any], *, verify: bool) -> bool:
    """Whether a text is there and is what the last download left."""
    if not looks_complete(path) or path.stat().st_size != recorded.get("bytes", path.stat().st_size):
        return False
    return not verify or digest_of(path, "sha256") == recorded.get("sha256")


def missing_images(folder: Path, part: str, images: Iterable[int], *, verify: bool) -> list[int]:
    """Image ids whose picture is not there or damaged, in the given order."""
    listed = list(images)
    paths = [folder / picture_member(part, image) for image in listed]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        intact = pool.map(decodes if verify else looks_complete, paths)
        return [image for image, is_intact in zip(listed, intact, strict=True) if not is_intact]


def text_jobs(folder: Path, source: Source, archives: Iterable[TextArchive]) -> list[Job]:
    """One job per archive; its JSON file is unpacked as soon as it is there."""
    return [
        Job(
            name=archive.member,
            url=source.text(archive),
            part=partial_path(folder / archive.name),
            accept=functools.partial(unpack, targets={archive.member: text_path(folder, archive)}),
        )
        for archive in archives
    ]


def picture_jobs(folder: Path, source: Source, part: str, images: Iterable[int]) -> list[Job]:
    """One job per picture."""
    jobs = []
    for image in images:
        member = picture_member(part, image)
        accept = functools.partial(accept_picture, target=folder / member)
        jobs.append(Job(member, source.picture(part, image), partial_path(folder / member), accept))
    return jobs


def archive_jobs(folder: Path, source: Source, part: str, images: Sequence[int]) -> list[Job]:
    """One job for the archive of a part, of which these pictures are unpacked; none when there are no pictures."""
    if not images:
        return []
    members = (picture_member(part, image) for image in images)
    accept = functools.partial(unpack, targets={member: folder / member for member in members})
    name = f"{part}2014.zip"
    return [Job(name, source.picture_archive(part), partial_path(folder / name), accept)]


def transfer_bytes(missing: Mapping[str, int], *, archives: bool) -> int:
    """About how much comes over the network for so many pictures per part."""
    whole = {part: PICTURES[part].num_bytes if number else 0 for part, number in missing.items()}
    return sum(whole.values()) if archives else sum(missing.values()) * PICTURE_BYTES


def disk_bytes(texts: Iterable[TextArchive], missing: Mapping[str, int], *, archives: bool) -> int:
    """About how much the folder grows at most, archives included until they are unpacked."""
    kept = sum(archive.num_bytes * UNPACKED for archive in texts) + sum(missing.values()) * PICTURE_BYTES
    return kept + (transfer_bytes(missing, archives=True) if archives else 0)


def free_bytes(folder: Path) -> int:
    """Free space where a folder is or will be."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def check_space(folder: Path, needed_bytes: int) -> None:
    """ValueError when the disk has no room for what is ahead."""
    free = free_bytes(folder)
    if needed_bytes and free < needed_bytes + _SPARE_BYTES:
        raise ValueError(
            f"--out {folder}: about {size_text(needed_bytes)} are to come, but {size_text(free)} are free there; "
            "make room, or take a smaller --fraction and --eval-fraction"
        )
