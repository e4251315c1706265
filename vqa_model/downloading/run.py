"""The download itself: texts first, then the sample that they name, then what is missing of its pictures.

A quarter of the training pictures is 3.4 GB of 13.5, so questions come first and say which pictures their sample needs.
What lies there whole is never fetched again; `download.json` is written last and says which sample there is.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vqa_model.data.official_files import DOWNLOAD_FILE, PARTS
from vqa_model.downloading.fetcher import Fetcher, FetchError, Job
from vqa_model.downloading.integrity import PARTIAL_FOLDER, partial_path
from vqa_model.downloading.missing_files import (
    archive_jobs,
    check_space,
    disk_bytes,
    free_bytes,
    last_download,
    missing_images,
    picture_jobs,
    sampled_images,
    text_facts,
    text_is_intact,
    text_jobs,
    transfer_bytes,
)
from vqa_model.downloading.official_files import PICTURES, TEXTS, Source, TextArchive, picture_member, text_path
from vqa_model.downloading.options import INCOMPLETE, PROGRAM
from vqa_model.downloading.progress import FetchProgress, size_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FAILED_FILE: Final = "failed.txt"
MAX_SHOWN = 5  # failures on the screen
MAX_CONSECUTIVE_FAILURES = 32  # files: when so many fail one after another, the rest would fail as well


def partial_folders(folder: Path) -> list[Path]:
    """Where files grow: beside the texts and beside the pictures."""
    return [parent / PARTIAL_FOLDER for parent in (folder, *(folder / f"{part}2014" for part in PARTS))]


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Make the folder and hold it; ValueError when it cannot be written or another download holds it."""
    try:
        for partial_folder in partial_folders(folder):
            partial_folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise ValueError(f"--out {folder}: cannot be written ({error.strerror}); name another folder") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"--out {folder}: another download is writing there; wait for it or stop it") from error
        yield


def fetch(what: str, jobs: Sequence[Job], options: argparse.Namespace, expected_bytes: int = 0) -> dict[str, str]:
    """Fetch all jobs; gives the reason for each file that could not be had."""
    failed: dict[str, str] = {}
    if not jobs:
        return failed
    there_bytes = sum(job.part.stat().st_size for job in jobs if job.part.exists())
    progress, consecutive_failures = FetchProgress(what, len(jobs), max(0, expected_bytes - there_bytes)), 0
    settings = {name: getattr(options, name) for name in ("workers", "retries", "stall_seconds", "backoff_seconds")}
    try:
        with Fetcher(progress, **settings) as fetcher:
            for ended in fetcher.fetch_all(jobs):
                if ended is None:
                    progress.tick()
                    continue
                job, problem = ended
                consecutive_failures = consecutive_failures + 1 if problem else 0
                progress.tick(files=not problem)
                if isinstance(problem, FetchError):
                    failed[job.name] = f"{problem}; {job.url}"
                elif problem:
                    raise problem
                if consecutive_failures >= MAX_CONSECUTIVE_FAILURES:
                    rest = len(jobs) - progress.done - len(failed)
                    print(
                        f"{PROGRAM}: {consecutive_failures} files failed one after another; {rest} not tried",
                        file=sys.stderr,
                    )
                    break
    finally:
        progress.close()
    return failed


def fetch_texts(folder: Path, source: Source, archives: Sequence[TextArchive], options: argparse.Namespace) -> None:
    """Fetch archives of questions and answers; FetchError when one cannot be had."""
    failed = fetch("questions", text_jobs(folder, source, archives), options, sum(a.num_bytes for a in archives))
    if failed:
        report_failed(folder, failed)
        raise FetchError(f"{len(failed)} of the question files could not be had, see {folder / FAILED_FILE}")


def report_failed(folder: Path, failed: dict[str, str]) -> None:
    """List every file that could not be had in failed.txt, and the first few on the screen."""
    lines = [f"{name}: {reason}" for name, reason in sorted(failed.items())]
    (folder / FAILED_FILE).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    for line in lines[:MAX_SHOWN]:
        print(f"{PROGRAM}: {line}", file=sys.stderr)
    if len(lines) > MAX_SHOWN:
        print(f"{PROGRAM}: … and {len(lines) - MAX_SHOWN} more", file=sys.stderr)


def sample(folder: Path, source: Source, options: argparse.Namespace) -> dict[str, list[int]]:
    """Image ids wanted of each part; texts that turn out to be damaged are fetched again, once."""
    chosen = {}
    for part, fraction in zip(PARTS, (options.fraction, options.eval_fraction), strict=True):
        try:
            chosen[part] = sampled_images(folder, part, fraction, options.split_seed)
        except ValueError as error:
            print(f"{error} — fetching it again", file=sys.stderr)
            fetch_texts(folder, source, [archive for archive in TEXTS if archive.part == part], options)
            chosen[part] = sampled_images(folder, part, fraction, options.split_seed)
    return chosen


def write_download_file(
    folder: Path, options: argparse.Namespace, chosen: dict[str, list[int]], failed: Sequence[str]
) -> None:
    """Say, in one step, which sample there is."""
    facts = {name: getattr(options, name) for name in ("fraction", "eval_fraction", "split_seed")}
    counts = {f"{part}_images": len(images) for part, images in chosen.items()}
    files = {archive.member: text_facts(text_path(folder, archive)) for archive in TEXTS}
    draft = partial_path(folder / DOWNLOAD_FILE)
    content = facts | counts | {"missing_images": sorted(failed), "files": files}
    draft.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    draft.replace(folder / DOWNLOAD_FILE)


def print_forecast(folder: Path, texts: Sequence[TextArchive], options: argparse.Namespace) -> None:
    """Say what a download would fetch; exact numbers of pictures where the questions are there already."""
    shares = dict(zip(PARTS, (options.fraction, options.eval_fraction), strict=True))
    print(f"questions and answers: {len(texts)} files to fetch, {size_text(sum(a.num_bytes for a in texts))}")
    missing = dict.fromkeys(PARTS, 0)
    for part, share in shares.items():
        if options.questions_only:
            break
        count, known = round(PICTURES[part].num_images * share), "about "
        if not any(archive.part == part for archive in texts):
            images = sampled_images(folder, part, share, options.split_seed)
            count, known = len(missing_images(folder, part, images, verify=options.verify)), ""
        missing[part] = count
        size = transfer_bytes({part: count}, archives=options.archives)
        how = "the archive of all, " if options.archives and count else ""
        print(f"{part} pictures, a share of {share:g}: {known}{count:,} to fetch, {how}{size_text(size)}")
    over_network = sum(a.num_bytes for a in texts) + transfer_bytes(missing, archives=options.archives)
    on_disk = disk_bytes(texts, missing, archives=options.archives)
    print(f"in all about {size_text(over_network)} to fetch, {size_text(on_disk)} on disk at most; "
          f"{size_text(free_bytes(folder))} are free there")  # fmt: skip


def fetch_pictures(folder: Path, source: Source, options: argparse.Namespace) -> int:
    """Fetch what is missing of the sample and note the sample; gives the exit status."""
    print(f"choosing pictures{' and checking those that are there' if options.verify else ''} …", flush=True)
    chosen = sample(folder, source, options)
    missing = {part: missing_images(folder, part, images, verify=options.verify) for part, images in chosen.items()}
    counts = {part: len(images) for part, images in missing.items()}
    num_present = sum(len(images) for images in chosen.values()) - sum(counts.values())
    print(f"pictures: {num_present:,} are there, {sum(counts.values()):,} to fetch", flush=True)
    check_space(folder, disk_bytes([], counts, archives=options.archives))
    make_jobs = archive_jobs if options.archives else picture_jobs
    jobs = [job for part, images in missing.items() for job in make_jobs(folder, source, part, images)]
    failed = fetch("pictures", jobs, options, transfer_bytes(counts, archives=True) if options.archives else 0)
    remaining = {part: missing_images(folder, part, images, verify=options.verify) for part, images in missing.items()}
    lacking = [picture_member(part, image) for part, images in remaining.items() for image in images]
    if failed:
        report_failed(folder, failed)
    if lacking and not options.skip_bad_images:
        print(f"{PROGRAM}: {len(lacking):,} pictures are missing (see {folder / FAILED_FILE}); the same command tries "
              "them again, --skip-bad-images does without them", file=sys.stderr)  # fmt: skip
        return INCOMPLETE
    write_download_file(folder, options, chosen, lacking)
    for partial_folder in partial_folders(folder):
        shutil.rmtree(partial_folder, ignore_errors=True)
    print(f"{folder}: {len(chosen['train']):,} train and {len(chosen['val']):,} val pictures are there; use it with "
          f"`run_matrix.py --data {folder} --fraction {options.fraction:g}`")  # fmt: skip
    return 0


def download(options: argparse.Namespace) -> int:
    """Carry out the command; gives the exit status."""
    folder, source = options.out, Source.mirror(options.base_url) if options.base_url else Source()
    recorded = last_download(folder).get("files", {})
    texts = [
        archive
        for archive in TEXTS
        if not text_is_intact(text_path(folder, archive), recorded.get(archive.member, {}), verify=options.verify)
    ]
    if options.dry_run:
        print_forecast(folder, texts, options)
        return 0
    with lock_folder(folder):
        (folder / FAILED_FILE).unlink(missing_ok=True)
        check_space(folder, disk_bytes(texts, {}, archives=False))
        fetch_texts(folder, source, texts, options)
        return 0 if options.questions_only else fetch_pictures(folder, source, options)
