"""Fetching from a hub: a small server on the loopback address stands in for it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from transformers import Qwen2Config

from pellucid.config import ModelConfig
from pellucid.errors import ModelError
from pellucid.model.hub import UnreachableError, describe, fetch
from pellucid.model.load import load_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "owner/small-model"


class FakeHub(ThreadingHTTPServer):
    """Serves one repository at one commit, also under the branch name `main`."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = files
        self.requests: list[str] = []
        self.status = 200
        """Anything else is the answer to every request."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.server.requests.append(f"{self.command} {path}")
        if self.server.status != 200:
            return self.answer(self.server.status, b"", {})
        revisions = (COMMIT, "main")
        if path.startswith(f"/api/models/{NAME}"):
            rest = path.removeprefix(f"/api/models/{NAME}").strip("/").split("/")
            if rest == [""] or (rest[0] == "revision" and rest[1] in revisions):
                return self.answer_json(self.info())
            if rest[0] == "tree" and rest[1] in revisions:
                return self.answer_json(self.tree())
            return self.answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
        if path.startswith(f"/{NAME}/resolve/{COMMIT}/"):
            return self.answer_file(path.removeprefix(f"/{NAME}/resolve/{COMMIT}/"))
        return self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def info(self) -> dict[str, object]:
        siblings = [{"rfilename": name} for name in self.server.files]
        return {"id": NAME, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}

    def tree(self) -> list[dict[str, object]]:
        return [
            {"type": "file", "path": n, "size": len(b), "oid": hashlib.sha1(b).hexdigest()}
            for n, b in self.server.files.items()
        ]

    def answer_json(self, value: object) -> None:
        self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def answer_file(self, name: str) -> None:
        if name not in self.server.files:
            return self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
        body = self.server.files[name]
        etag = f'"{hashlib.sha1(body).hexdigest()}"'
        self.answer(200, body, {"ETag": etag, "X-Repo-Commit": COMMIT})

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        """Silent."""


@contextlib.contextmanager
def serving(files):
    hub = FakeHub(files)
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


@pytest.fixture
def files(reference, qwen_tokenizer):
    _, folder = reference(Qwen2Config)
    qwen_tokenizer.save(folder)
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    return found | {
        "README.md": b"words",
        "pytorch_model.bin": b"a pickle",
        "chat_template.jinja": b"{{ messages[0].content }}",
        "onnx/model.safetensors": b"other weights",
    }


@pytest.fixture
def hub(files):
    with serving(files) as server:
        yield server


@pytest.mark.parametrize("revision", [COMMIT, "main"])
def test_a_model_is_fetched_at_its_revision_without_what_it_does_not_need(revision, hub, tmp_path):
    folder = fetch(NAME, revision, endpoint=hub.url, cache=tmp_path / "cache")
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    unneeded = {"README.md", "pytorch_model.bin", "onnx/model.safetensors"}
    assert names == set(hub.files) - unneeded
    assert folder.name == COMMIT
    for name in names:
        assert (folder / name).read_bytes() == hub.files[name]
    assert not any("pytorch_model" in request for request in hub.requests)


def test_a_fetched_model_loads(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "pellucid.model.hub.fetch",
        lambda name, revision, **more: fetch(
            name, revision, endpoint=hub.url, cache=tmp_path / "cache", **more
        ),
    )
    config = ModelConfig(id=NAME, revision=COMMIT)
    loaded = load_model(config, dtype=torch.float32, device="cpu")
    assert loaded.name == NAME
    assert loaded.digest == hashlib.sha256(hub.files["model.safetensors"]).hexdigest()
    assert loaded.tokenizer.chat_template == "{{ messages[0].content }}"
    assert loaded.tokenizer.eos_ids == (2,)


def test_the_second_fetch_downloads_nothing(hub, tmp_path):
    first = fetch(NAME, COMMIT, endpoint=hub.url, cache=tmp_path / "cache")
    hub.requests.clear()
    assert fetch(NAME, COMMIT, endpoint=hub.url, cache=tmp_path / "cache") == first
    assert not [r for r in hub.requests if r.startswith("GET") and "/resolve/" in r]


def test_the_cache_serves_when_the_hub_is_gone(files, tmp_path):
    with serving(files) as hub:
        first = fetch(NAME, COMMIT, endpoint=hub.url, cache=tmp_path / "cache")
    assert fetch(NAME, COMMIT, endpoint=hub.url, cache=tmp_path / "cache") == first


def fails(match, name, revision, url, cache):
    with pytest.raises(ModelError, match=match) as caught:
        fetch(name, revision, endpoint=url, cache=cache)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_an_unknown_repository_is_named(hub, tmp_path):
    fails("no model owner/nothing", "owner/nothing", COMMIT, hub.url, tmp_path)
    fails("no model owner/nothing", "owner/nothing", "main", hub.url, tmp_path)


def test_an_unknown_revision_is_named(hub, tmp_path):
    fails("no revision", NAME, "f" * 40, hub.url, tmp_path)
    fails("no revision v9", NAME, "v9", hub.url, tmp_path)


def test_no_network_and_no_cache_says_what_to_do(files, tmp_path):
    with serving(files) as hub:
        url = hub.url
    fails("check the network or give a local model.path", NAME, "main", url, tmp_path)


def test_a_failing_hub_says_what_to_do(hub, tmp_path):
    hub.status = 403
    fails("check the network or give a local model.path", NAME, COMMIT, hub.url, tmp_path)


def test_an_unpinned_model_is_refused_before_anything_is_asked(hub, tmp_path):
    fails("needs a pinned revision", NAME, None, hub.url, tmp_path)
    assert hub.requests == []


def test_a_name_that_is_no_hub_id_is_refused(hub, tmp_path):
    fails("cannot fetch", "owner/na me", COMMIT, hub.url, tmp_path)


def test_a_description_that_the_cache_holds_is_read_without_asking_the_hub(hub, tmp_path):
    first = describe(NAME, COMMIT, endpoint=hub.url, cache=tmp_path / "cache")
    names = {path.name for path in first.iterdir()}
    assert {"config.json", "tokenizer.json", "chat_template.jinja"} <= names
    assert "model.safetensors" not in names
    hub.requests.clear()
    assert describe(NAME, COMMIT, endpoint=hub.url, cache=tmp_path / "cache") == first
    assert hub.requests == []


def test_without_the_hub_a_config_alone_will_do_and_nothing_will_not(files, tmp_path, capfd):
    with serving({"config.json": files["config.json"]}) as hub:
        first = describe(NAME, COMMIT, endpoint=hub.url, cache=tmp_path / "cache")
    assert [path.name for path in first.iterdir()] == ["config.json"]
    gone = "http://127.0.0.1:1"  # the served address may live on in an open connection
    assert describe(NAME, COMMIT, endpoint=gone, cache=tmp_path / "cache") == first
    with pytest.raises(UnreachableError, match="cannot reach the hub for model owner/small"):
        describe(NAME, COMMIT, endpoint=gone, cache=tmp_path / "other")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("id", ["owner/nothing", NAME])
def test_a_description_needs_a_revision_that_exists(id, hub, tmp_path):
    with pytest.raises(ModelError, match=r"no model owner/nothing|no revision") as caught:
        describe(id, "f" * 40, endpoint=hub.url, cache=tmp_path)
    assert not isinstance(caught.value, UnreachableError)
    with pytest.raises(ModelError, match="needs a pinned revision"):
        describe(id, None, endpoint=hub.url, cache=tmp_path)
