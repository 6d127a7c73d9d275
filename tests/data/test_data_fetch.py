import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from published_files import FIXTURES, parquet_bytes

from pellucid.data.fetch import Hosts, fetch, get
from pellucid.data.load import load
from pellucid.data.registry import DATASETS
from pellucid.errors import DataError, RunError

LANGUAGES = ("bn", "de", "en", "es", "fr", "ja", "ru", "sw", "te", "th", "zh")
EXPECTED = {
    ("gsm8k", "train"): 5,
    ("gsm8k", "test"): 3,
    ("math", "train"): 4,
    ("math", "test"): 2,
    ("math-500", "test"): 2,
    ("aime-2024", "test"): 2,
    ("aime-2025", "test"): 2,
    ("amc-2023", "test"): 2,
    ("dapo-math-17k", "train"): 4,
    ("svamp", "test"): 4,
    ("gsm-plus", "test"): 4,
    ("mbpp", "train"): 2,
    ("mbpp", "test"): 3,
    ("mbpp", "validation"): 1,
    ("mbpp", "prompt"): 1,
    ("arc-challenge", "test"): 3,
    ("arc-challenge", "dev"): 2,
    ("mmlu", "test"): 4,
    ("mmlu", "val"): 4,
    ("mmlu", "dev"): 4,
    ("ifeval", "test"): 3,
    ("ifbench", "test"): 3,
    **{("mgsm", language): 2 for language in LANGUAGES},
}


def stored(data_dir, name, split):
    text = (data_dir / name / f"{split}.jsonl").read_text()
    return [json.loads(line) for line in text.split("\n") if line]


@pytest.mark.parametrize("name", list(DATASETS))
def test_every_set_is_fetched_from_a_folder_of_published_files(name, published, tmp_path):
    assert get(name, source_folder=published.folder, data_dir=tmp_path) == tmp_path / name
    for split in published.datasets[name].splits:
        rows = stored(tmp_path, name, split.name)
        assert len(rows) == EXPECTED[name, split.name]
        assert [row["id"] for row in rows] == [
            f"{name}/{split.name}/{number}" for number in range(len(rows))
        ]
        grader = published.datasets[name].grader
        assert all(row["question"] and row["grader"] == grader for row in rows)


def test_the_first_gsm8k_row_is_the_published_one(published, tmp_path):
    get("gsm8k", source_folder=published.folder, data_dir=tmp_path)
    first = stored(tmp_path, "gsm8k", "train")[0]
    assert first["question"].startswith("Natalia sold clips to 48 of her friends")
    assert first["gold"] == "72"


def test_a_file_of_several_splits_gives_each_its_own_rows(published, tmp_path):
    get("mbpp", source_folder=published.folder, data_dir=tmp_path)
    questions = {
        s: [r["question"] for r in stored(tmp_path, "mbpp", s)] for s in ("prompt", "test")
    }
    assert ["similar elements" in question for question in questions["prompt"]] == [True]
    assert not any("similar elements" in question for question in questions["test"])


def test_a_language_is_a_split_and_marks_its_problems(published, tmp_path):
    get("mgsm", source_folder=published.folder, data_dir=tmp_path)
    for language in ("de", "zh"):
        rows = stored(tmp_path, "mgsm", language)
        assert [row["language"] for row in rows] == [language] * 2
        assert [row["gold"] for row in rows] == ["18", "3"]


def test_progress_counts_the_splits(published, tmp_path):
    seen = []
    get(
        "math",
        source_folder=published.folder,
        data_dir=tmp_path,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 2), (2, 2)]


def test_the_folder_of_the_set_itself_and_unpacked_files_are_accepted(published, tmp_path):
    own = tmp_path / "anywhere"
    own.mkdir()
    for split in ("train", "test"):
        packed = (published.folder / f"gsm8k/{split}.jsonl.gz").read_bytes()
        (own / f"{split}.jsonl").write_bytes(gzip.decompress(packed))
    get("gsm8k", source_folder=own, data_dir=tmp_path / "data")
    assert len(stored(tmp_path / "data", "gsm8k", "train")) == 5


def test_an_altered_file_is_refused_with_both_digests_and_leaves_nothing(published, tmp_path):
    source = tmp_path / "source"
    (source / "gsm8k").mkdir(parents=True)
    for split in ("train", "test"):
        packed = (published.folder / f"gsm8k/{split}.jsonl.gz").read_bytes()
        text = gzip.decompress(packed).replace(b"#### 3", b"#### 4")
        (source / f"gsm8k/{split}.jsonl").write_bytes(text)
    expected = published.datasets["gsm8k"].split("test").original_sha256
    with pytest.raises(
        DataError, match=rf"test\.jsonl was altered: expected sha256 {expected}.*got"
    ):
        get("gsm8k", source_folder=source, data_dir=tmp_path / "data")
    assert not (tmp_path / "data/gsm8k/manifest.json").exists()


def test_a_missing_file_and_an_unknown_set_are_named(published, tmp_path):
    with pytest.raises(DataError, match=r"svamp/SVAMP\.json below"):
        get("svamp", source_folder=tmp_path, data_dir=tmp_path)
    with pytest.raises(DataError, match="did you mean 'gsm8k'"):
        get("gms8k", source_folder=published.folder, data_dir=tmp_path)


def test_a_damaged_gzip_file_is_named(published, tmp_path):
    (tmp_path / "gsm8k").mkdir()
    packed = (published.folder / "gsm8k/train.jsonl.gz").read_bytes()
    (tmp_path / "gsm8k/train.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(DataError, match=r"train\.jsonl\.gz is a damaged gzip file"):
        get("gsm8k", source_folder=tmp_path, data_dir=tmp_path / "data")


def test_a_set_that_is_there_is_not_fetched_again_and_a_damaged_one_is(published, tmp_path):
    get("svamp", source_folder=published.folder, data_dir=tmp_path)
    before = (tmp_path / "svamp/test.jsonl").read_bytes()
    nowhere = tmp_path / "nowhere"
    assert get("svamp", source_folder=nowhere, data_dir=tmp_path) == tmp_path / "svamp"
    (tmp_path / "svamp/test.jsonl").write_bytes(before[:100])
    with pytest.raises(DataError, match="nowhere"):
        get("svamp", source_folder=nowhere, data_dir=tmp_path)
    get("svamp", source_folder=published.folder, data_dir=tmp_path)
    assert (tmp_path / "svamp/test.jsonl").read_bytes() == before


def test_a_data_folder_that_cannot_be_written_is_a_users_mistake(published, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="cannot"):
        get("svamp", source_folder=published.folder, data_dir=tmp_path / "file")


# --- from the network: a loopback server stands in for both hosts ---


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[str]:
    """Serve `files` by path, with the headers that the hub's client asks for."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self, with_body: bool) -> None:
            payload = files.get(self.path)
            if payload is None:
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(payload)))
            self.send_header("ETag", '"fixture"')
            self.send_header("X-Repo-Commit", self.path.split("/resolve/")[-1].split("/")[0])
            self.end_headers()
            if with_body:
                self.wfile.write(payload)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def hub_files(published, name: str) -> dict[str, bytes]:
    """The fixture rows in the container the hub serves, at the pinned revision."""
    dataset = published.datasets[name]
    files = {}
    for split in dataset.splits:
        packed = gzip.decompress((published.folder / split.folder_file).read_bytes())
        rows = [json.loads(line) for line in packed.decode().split("\n") if line]
        path = split.remote_files[0]
        payload = parquet_bytes(rows) if path.endswith(".parquet") else packed
        files[f"/datasets/{dataset.repository}/resolve/{dataset.revision}/{path}"] = payload
    return files


@pytest.mark.parametrize("name", ["gsm8k", "math-500"])
def test_the_hub_at_the_pinned_revision_gives_the_same_problems(name, published, tmp_path):
    with serving(hub_files(published, name)) as address:
        get(name, data_dir=tmp_path / "hub", hosts=Hosts(hub=address))
    get(name, source_folder=published.folder, data_dir=tmp_path / "folder")
    for split in published.datasets[name].splits:
        file = f"{name}/{split.name}.jsonl"
        assert (tmp_path / "hub" / file).read_bytes() == (tmp_path / "folder" / file).read_bytes()


def test_math_from_the_hub_in_another_order_gives_the_same_ids(published, tmp_path):
    dataset = published.datasets["math"]
    files = {}
    for split in dataset.splits:
        rows = json.loads((FIXTURES / f"math/{split.name}.json").read_text())[::-1]
        for number, path in enumerate(split.remote_files):
            part = rows[number : number + 1] if number < 6 else rows[6:]
            empty = [{"problem": "", "solution": ""}][:0]
            files[f"/datasets/{dataset.repository}/resolve/{dataset.revision}/{path}"] = (
                parquet_bytes(part or empty)
            )
    with serving(files) as address:
        get("math", data_dir=tmp_path / "hub", hosts=Hosts(hub=address))
    get("math", source_folder=published.folder, data_dir=tmp_path / "folder")
    for split in ("train", "test"):
        assert stored(tmp_path / "hub", "math", split) == stored(tmp_path / "folder", "math", split)


def test_raw_files_of_a_pinned_commit_are_fetched_and_checked(published, tmp_path):
    dataset = published.datasets["svamp"]
    path = f"/{dataset.repository}/{dataset.revision}/SVAMP.json"
    payload = (published.folder / "svamp/SVAMP.json").read_bytes()
    with serving({path: payload}) as address:
        get("svamp", data_dir=tmp_path, hosts=Hosts(github=address))
    assert len(load("svamp", "test", data_dir=tmp_path).problems) == 4
    altered = payload.replace(b"51.0", b"52.0")
    with (
        serving({path: altered}) as address,
        pytest.raises(DataError, match=r"SVAMP\.json was altered: expected sha256 .*, got"),
    ):
        get("svamp", data_dir=tmp_path / "other", hosts=Hosts(github=address))


def test_altered_rows_from_the_hub_are_refused_by_their_content(published, tmp_path):
    files = hub_files(published, "math-500")
    files = {path: payload.replace(b'"7"', b'"8"') for path, payload in files.items()}
    with (
        serving(files) as address,
        pytest.raises(
            DataError, match=r"math-500 test from .* expected 2 rows with content sha256"
        ),
    ):
        get("math-500", data_dir=tmp_path, hosts=Hosts(hub=address))
    assert not (tmp_path / "math-500/manifest.json").exists()


@pytest.mark.parametrize("name", ["math-500", "svamp"])
def test_an_unreachable_host_names_the_way_out(name, published, tmp_path):
    with serving({}) as address:
        hosts = Hosts(hub=address, github=address)
        with pytest.raises(
            DataError, match=rf"cannot fetch .*pellucid data get {name} --from FOLDER"
        ):
            get(name, data_dir=tmp_path, hosts=hosts)
    with pytest.raises(DataError, match="cannot fetch"):  # nobody listens there any more
        get(name, data_dir=tmp_path, hosts=hosts)


def test_a_file_with_other_fields_is_refused(published, tmp_path):
    wrong = replace(published.datasets["svamp"], reader="gsm8k")
    with pytest.raises(DataError, match="has not the fields of svamp"):
        fetch(wrong, source_folder=published.folder, data_dir=tmp_path, hosts=Hosts())
