"""What headers and ends of files say."""

from datetime import datetime, timezone
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqa_model.downloading.integrity import looks_complete
from vqa_model.downloading.response_headers import RemoteObject, retry_after


@given(st.integers(0, 10**6), st.floats(0, 2e9))
def test_a_date_says_the_same_as_its_seconds(seconds, now):
    moment = datetime.fromtimestamp(int(now) + seconds, timezone.utc)
    assert retry_after(str(seconds), now) == seconds
    assert retry_after(format_datetime(moment, usegmt=True), now) == pytest.approx(seconds, abs=1)


@given(st.text())
def test_no_header_is_an_error(text):
    assert retry_after(text, 0) >= 0
    names = ("content-length", "content-range", "etag", "content-md5", "x-goog-hash", "x-amz-checksum-sha256")
    remote = RemoteObject.from_headers(dict.fromkeys([*names, "x-amz-request-id"], text))
    assert remote.size is None or remote.size >= 0


MD5 = "900150983cd24fb0d6963f7d28e17f72"
HEADERS = {
    "an object store": ({"etag": f'"{MD5}"', "x-amz-request-id": "1"}, f"md5 {MD5}"),
    "uploaded in pieces": ({"etag": f'"{MD5}-12"', "x-amz-request-id": "1"}, ""),
    "encrypted": ({"etag": f'"{MD5}"', "x-amz-request-id": "1", "x-amz-server-side-encryption": "aws:kms"}, ""),
    "any server": ({"etag": f'"{MD5}"'}, ""),
    "weak": ({"etag": f'W/"{MD5}"', "x-amz-request-id": "1"}, ""),
    "content-md5": ({"content-md5": "kAFQmDzST7DWlj99KOF/cg=="}, f"md5 {MD5}"),
    "google": ({"x-goog-hash": "crc32c=Nks/tw==,md5=kAFQmDzST7DWlj99KOF/cg=="}, f"md5 {MD5}"),
    "sha256 in pieces": ({"x-amz-checksum-sha256": "kAFQmDzST7DWlj99KOF/cg==-3"}, ""),
}


@pytest.mark.parametrize("case", HEADERS)
def test_digests_are_taken_where_they_are_digests(case):
    headers, digest = HEADERS[case]
    assert RemoteObject.from_headers(headers).digest == digest
    etag = headers.get("etag", "W/")
    assert RemoteObject.from_headers(headers | {"last-modified": "then"}).validator == (
        "then" if etag.startswith("W/") else etag
    )


def test_padding_after_the_end_of_a_picture_is_no_damage(tmp_path, small_world):
    file = tmp_path / "padded.jpg"
    file.write_bytes(next((small_world / "val2014").iterdir()).read_bytes() + bytes(100))
    assert looks_complete(file)
    assert not looks_complete(tmp_path / "absent.jpg")
