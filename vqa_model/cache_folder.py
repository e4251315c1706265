"""Where generated and decoded data live, and how they get there whole.

Everything in the cache can be made again, so writers never lock: each builds under a private
name beside the target and renames it into place in one step. A second writer that comes late
throws its copy away; both made the same bytes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def cache_folder() -> Path:
    """Folder named by TUNEMATRIX_CACHE, else ~/.cache/tunematrix (made on first use)."""
    folder = Path(os.environ.get("TUNEMATRIX_CACHE") or Path.home() / ".cache" / "tunematrix")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `target` when the block ends well, or vanishes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield draft
        try:
            draft.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
