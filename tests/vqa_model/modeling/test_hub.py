"""A saved folder goes to a hub and comes back: the real client talks to a small hub on this machine."""

import base64
import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

from vqa_model.answering.answerer import Answerer
from vqa_model.task import VQATask

COMMIT = "c" * 40
PUSH = """
import sys
import vqa_model.modeling.processing
from transformers import AutoModel, AutoProcessor
from vqa_model.predict import main
folder, way, *words = sys.argv[1:]
if way == "folder":
    from huggingface_hub import HfApi
    HfApi().create_repo("me/vqa", exist_ok=True)
    HfApi().upload_folder(folder_path=folder, repo_id="me/vqa")
else:
    AutoModel.from_pretrained(folder).push_to_hub("me/vqa", max_shard_size="300KB")
    AutoProcessor.from_pretrained(folder).push_to_hub("me/vqa")
sys.exit(main(words))
"""
PREDICT = ["--model", "me/vqa", "--question", "Is it red?", "--json", "--image"]


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's interface as it takes to make one repository, commit to it and read it."""

    protocol_version = "HTTP/1.1"
    files: dict[str, bytes]
    large: dict[str, bytes]
    commits: list[dict]

    def log_message(self, *words):
        pass

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def give(self, content, status=200, **headers):
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(content), "X-Repo-Commit": COMMIT, **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_POST(self):
        place, body = self.path.split("?")[0], self.body()
        if place == "/api/repos/create":
            self.give({"url": f"{self.server.address}/me/vqa"})
        elif place == "/api/validate-yaml":
            self.give({"errors": [], "warnings": []})
        elif place == "/api/models/me/vqa/preupload/main":
            names = [file["path"] for file in json.loads(body)["files"]]
            kinds = {True: "lfs", False: "regular"}
            listed = [{"path": n, "uploadMode": kinds[n.endswith("tensors")], "shouldIgnore": False} for n in names]
            self.give({"files": listed})
        elif place == "/me/vqa.git/info/lfs/objects/batch":
            wanted = json.loads(body)["objects"]
            upload = [{"upload": {"href": f"{self.server.address}/large/{file['oid']}"}} for file in wanted]
            self.give({"objects": [{**f, "actions": action} for f, action in zip(wanted, upload, strict=True)]})
        elif place == "/api/models/me/vqa/commit/main":
            for line in map(json.loads, body.splitlines()):
                self.commits.append(line)
                value = line["value"]
                if line["key"] == "file":
                    self.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    self.files[value["path"]] = self.large[value["oid"]]
            self.give({"commitUrl": f"{self.server.address}/me/vqa/commit/{COMMIT}", "commitOid": COMMIT})
        else:
            self.give({"error": f"no {place}"}, 404)

    def do_PUT(self):
        self.large[self.path.rpartition("/")[2]] = self.body()
        self.give({})

    def do_GET(self):
        place = self.path.split("?")[0]
        name = place.rpartition("/")[2]
        if place.startswith("/me/vqa/resolve/") and name in self.files:
            self.give(self.files[name], ETag=f'"{name}-{len(self.files[name])}"')
        elif place.startswith("/api/models/me/vqa/revision/") or place == "/api/models/me/vqa":
            siblings = [{"rfilename": path} for path in self.files]
            self.give({"id": "me/vqa", "sha": COMMIT, "siblings": siblings, "private": False, "tags": []})
        elif place.startswith("/api/models/me/vqa/tree/"):
            listed = [{"type": "file", "path": path, "size": len(c), "oid": path} for path, c in self.files.items()]
            self.give(listed if "chat" not in place else [])
        else:
            self.give({"error": "not here"}, 404, X_Error_Code="EntryNotFound")

    def do_HEAD(self):
        self.do_GET()


@pytest.fixture
def server():
    handler = type("OneHub", (Hub,), {"files": {}, "large": {}, "commits": []})
    found = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    found.address = f"http://127.0.0.1:{found.server_port}"
    thread = Thread(target=found.serve_forever, daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()
    thread.join()


@pytest.fixture
def python(server, root, tmp_path):
    """Run Python anew, with a cache of its own and this hub as the hub."""
    own = {
        "HF_ENDPOINT": server.address,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_TOKEN": "hf_test",
        "NO_PROXY": "127.0.0.1",
    }
    environment = {**os.environ, **own, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment = {name: value for name, value in environment.items() if name != "HF_HUB_OFFLINE"}

    def run(*words):
        command = [sys.executable, "-W", "ignore", *map(str, words)]
        settings = {"capture_output": True, "text": True, "cwd": root, "env": environment, "timeout": 120}
        return subprocess.run(command, check=False, **settings)

    return run


@pytest.fixture(scope="module")
def folder(small_world, tmp_path_factory):
    task = VQATask(data=str(small_world), min_count=1)
    place = tmp_path_factory.mktemp("models") / "mine"
    torch.manual_seed(0)
    task.save_model(task.build_model(), place, {"plan": "lora", "metrics": {"vqa_accuracy": 0.5}})
    return place


@pytest.mark.slow
@pytest.mark.parametrize("way", ["folder", "push_to_hub"])
def test_what_is_pushed_is_what_comes_back(server, python, folder, tmp_path, way):
    picture = tmp_path / "red.png"
    Image.new("RGB", (40, 30), (200, 30, 30)).save(picture)
    done = python("-c", PUSH, folder, way, *PREDICT, picture)
    assert done.returncode == 0, done.stderr
    files = server.RequestHandlerClass.files
    wanted = {"README.md", "config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json"}
    assert wanted <= set(files)
    weights = [name for name in files if name.endswith(".safetensors")]
    assert len(weights) == 1 if way == "folder" else (len(weights) > 2 and "model.safetensors.index.json" in files)
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pkl", ".py"))]
    assert ModelCard(files["README.md"].decode()).data.eval_results[0].metric_value == 0.5
    assert files["README.md"] == (folder / "README.md").read_bytes()
    answers = Answerer.load(folder).answer(picture, "Is it red?")
    found = json.loads(done.stdout[done.stdout.index("{") :])["answers"]  # what pushes may print before
    assert [row["text"] for row in found] == [answer.text for answer in answers]
    assert [row["probability"] for row in found] == pytest.approx([answer.probability for answer in answers], abs=1e-6)


@pytest.mark.slow
def test_a_repository_with_pickles_only_is_refused_and_never_fetched(server, python, folder, tmp_path):
    files = server.RequestHandlerClass.files
    files |= {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".json"}
    files["pytorch_model.bin"] = b"a pickle that must not be read"
    Image.new("RGB", (40, 30)).save(tmp_path / "x.png")
    done = python("-m", "vqa_model.predict", *PREDICT, tmp_path / "x.png")
    assert done.returncode == 2
    assert "me/vqa: cannot be loaded as a model" in done.stderr
    assert not list(tmp_path.rglob("pytorch_model.bin"))
    assert not done.stdout
