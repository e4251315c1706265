"""A web server with VQA v2's tree on it, and the faults that servers and networks have."""

import hashlib
import io
import socket
import struct
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from vqa_model.downloading.official_files import TEXTS


def zipped(members, compression=zipfile.ZIP_STORED):
    """An archive of {name: bytes}."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return packed.getvalue()


def mirror_files(folder):
    """What a mirror of a data folder serves, {path: bytes}."""
    files = {f"/{archive.name}": zipped({archive.member: (folder / archive.member).read_bytes()}) for archive in TEXTS}
    for part in ("train2014", "val2014"):
        pictures = {f"{part}/{file.name}": file.read_bytes() for file in sorted((folder / part).iterdir())}
        files |= {f"/{name}": content for name, content in pictures.items()}
        files[f"/zips/{part}.zip"] = zipped(pictures)
    return files


class Mirror(ThreadingHTTPServer):
    """Serves `files`; `faults` of a path are used up one per request; `requests` is the log."""

    daemon_threads = True

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.faults, self.requests, self.delay, self.connections = dict(files), {}, [], 0.0, 0
        self.gone = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def asked(self, path):
        """Range headers of the requests for a path, None where the whole was asked for."""
        return [ranged for _, asked, ranged in self.requests if asked == path]

    def get_request(self):
        self.connections += 1
        return super().get_request()

    def handle_error(self, request, client_address):
        """A client that was killed is no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else every small answer takes 40 ms

    def log_message(self, *_):
        pass

    def do_GET(self):
        mirror = self.server
        mirror.requests.append((time.monotonic(), self.path, self.headers["Range"]))
        time.sleep(mirror.delay)
        faults = mirror.faults.get(self.path)
        fault = faults.pop(0) if faults else whole
        fault(self, mirror.files.get(self.path))

    def answer(self, content, *, status=200, etag=True, ranges=True, sent=1.0, **headers):
        """Send content, or the asked range of it; of what is announced a share `sent` is really sent."""
        tag = f'"{hashlib.md5(content).hexdigest()}"' if etag is True else etag
        if tag:
            headers |= {"ETag": tag, "x-amz-request-id": "1"}
        ranged = self.headers["Range"] if ranges and status == 200 else None
        if ranged and (ranges == "always" or self.headers["If-Range"] in {None, tag}):
            start = int(ranged.removeprefix("bytes=").removesuffix("-"))
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            content, status = content[start:], 206
        self.send_response(status)
        for name, value in {"Content-Length": len(content), **headers}.items():
            if value is not None:
                self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(content[: int(len(content) * sent)])
        self.wfile.flush()


def whole(handler, content):
    """No fault: an object store."""
    if content is None:
        handler.answer(b"<html>no such key</html>", status=404, etag="")
    else:
        handler.answer(content)


def truncate(handler, content):
    handler.answer(content, sent=0.5)
    handler.close_connection = True


def unsized_half(handler, content):
    """The end of the connection is the end of the file, as far as anybody can tell."""
    handler.answer(content, etag="", sent=0.5, **{"Content-Length": None})
    handler.close_connection = True


def stall(handler, content):
    handler.answer(content, sent=0.5)
    handler.server.gone.wait(20)
    handler.close_connection = True


def reset(handler, content):
    handler.answer(content, sent=0.5)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True


def refuse(status, **headers):
    return lambda handler, _: handler.answer(b"no", status=status, etag="", **headers)


def page(handler, _):
    """A captive portal: everything is a page, and fine."""
    handler.answer(b"<!DOCTYPE html><p>Please log in</p>", etag="", ranges=False)


def without_ranges(handler, content):
    handler.answer(content, ranges=False)


def without_tags(handler, content):
    handler.answer(content, etag="")


def truncate_without_tags(handler, content):
    handler.answer(content, etag="", sent=0.5)
    handler.close_connection = True


def wrong_digest(handler, content):
    handler.answer(content, etag=f'"{"0" * 32}"')


def flip(handler, content):
    """One byte in the middle differs, and nothing says so."""
    place = len(content) // 2
    handler.answer(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :], etag="")


def always_ranges(handler, content):
    """Sends the range whatever If-Range says."""
    handler.answer(content, ranges="always")


def moved(to):
    return lambda handler, _: handler.answer(b"", status=302, etag="", Location=to)


def tagged(tag, **how):
    """A server whose tags are no digests."""

    def fault(handler, content):
        handler.answer(content, etag=f'"{tag}"', **how)
        handler.close_connection = True

    return fault


def replaced(content, then=whole):
    """The object is another one from this request on."""

    def fault(handler, _):
        handler.server.files[handler.path] = content
        then(handler, content)

    return fault
