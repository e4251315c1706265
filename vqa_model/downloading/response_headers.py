"""What a server says of a file in the headers of its answer: how to know it again, its size, its digest, its wishes.

Only what is there is used. A digest is taken from an ETag only where an object store sent it: elsewhere 32 hexadecimal
digits may be anything.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True)
class RemoteObject:
    """An object on a server; fields are empty where the server says nothing."""

    validator: str = ""
    size: int | None = None
    digest: str = ""  # "md5 <hex>"

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> RemoteObject:
        """Read the headers (names in small letters) of an answer with the whole object or a range of it."""
        ranged = re.fullmatch(r"bytes \d+-\d+/(\d+)", headers.get("content-range", ""))
        length = ranged[1] if ranged else headers.get("content-length", "")
        etag = headers.get("etag", "")
        validator = etag if etag.startswith('"') else headers.get("last-modified", "")  # W/"…" cannot tell bytes apart
        return cls(validator, int(length) if length.isdecimal() else None, _published_digest(etag, headers))


def _published_digest(etag: str, headers: Mapping[str, str]) -> str:
    """Digest of the whole object; the ETag is none after an upload in pieces, or where a key encrypts the object."""
    google = re.search(r"\bmd5=([\w+/=]+)", headers.get("x-goog-hash", ""))
    for kind, code in (
        ("sha256", headers.get("x-amz-checksum-sha256", "")),
        ("md5", headers.get("content-md5", "")),
        ("md5", google[1] if google else ""),
    ):
        if re.fullmatch(r"[A-Za-z0-9+/]+=*", code) and len(code) % 4 == 0:
            return f"{kind} {base64.b64decode(code).hex()}"
    by_key = "aws:kms" in headers.get("x-amz-server-side-encryption", "")
    stored = "x-amz-request-id" in headers and not by_key
    return f"md5 {etag[1:-1]}" if stored and re.fullmatch(r'"[0-9a-f]{32}"', etag) else ""


def digest_of(path: Path, kind: str) -> str:
    """Digest of a file's content in hexadecimal; `kind` is a name hashlib knows."""
    found = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def retry_after(value: str, now: float) -> float:
    """Seconds that a Retry-After header asks to wait, given in seconds or as a date; 0 when it is neither."""
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return 0.0
