"""What a stage was made from."""

import json
import platform
import subprocess

from pellucid import manifest
from pellucid.manifest import code_state, environment, write_manifest


def test_a_manifest_names_inputs_code_versions_seed_and_device(tmp_path):
    path = tmp_path / "manifest.json"
    write_manifest(
        path,
        stage="zero",
        digest="0" * 64,
        inputs={"model": "m"},
        outputs={"metrics.jsonl": "d"},
        seed=1,
        device="cpu, 2 threads",
        more={"wall_s": 3.5},
    )
    stored = json.loads(path.read_text())
    assert stored["inputs"] == {"model": "m"}
    assert stored["outputs"] == {"metrics.jsonl": "d"}
    assert stored["python"] == platform.python_version()
    assert stored["packages"]["pydantic"][0].isdigit()
    assert stored["code"]["source_sha256"] == code_state()["source_sha256"]
    assert (stored["seed"], stored["device"], stored["wall_s"]) == (1, "cpu, 2 threads", 3.5)


def test_the_hosts_name_is_nowhere_in_it():
    text = json.dumps([environment(), code_state()])
    assert platform.node() not in text


def test_a_checkout_gives_commit_and_diff_and_a_foreign_repository_does_not(tmp_path, monkeypatch):
    package = tmp_path / "repo" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(manifest, "PACKAGE_ROOT", package)

    def git(*arguments):
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path / "repo", check=True)

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "not ours")
    assert "commit" not in code_state()
    git("add", ".")
    git("commit", "-q", "-m", "ours")
    clean = code_state()
    assert len(clean["commit"]) == 40
    assert clean["diff_sha256"] is None
    (package / "__init__.py").write_text("changed = True\n")
    changed = code_state()
    assert changed["commit"] == clean["commit"]
    assert len(changed["diff_sha256"]) == 64
    assert changed["source_sha256"] != clean["source_sha256"]
