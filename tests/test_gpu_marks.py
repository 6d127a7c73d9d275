"""`pytest -m gpu` runs what needs a GPU, all of it and nothing else."""

import shutil
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent


def test_files_named_for_the_device_are_marked(tmp_path):
    shutil.copy(TESTS / "conftest.py", tmp_path)
    for name in ("test_one_cuda.py", "test_two.py"):
        (tmp_path / name).write_text("def test_it():\n    pass\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu: needs a CUDA device\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--collect-only"]
    done = subprocess.run(
        [*command, "-m", "gpu"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "test_one_cuda.py" in done.stdout
    assert "test_two.py" not in done.stdout


def test_elsewhere_a_test_that_only_a_gpu_runs_is_marked_by_hand():
    texts = {
        path.name: path.read_text()
        for path in TESTS.rglob("test_*.py")
        if not path.stem.endswith("_cuda") and path != Path(__file__)
    }
    skipped = {name: text.count("skipif(not torch.cuda") for name, text in texts.items()}
    marked = {name: text.count("mark.gpu") for name, text in texts.items()}
    assert skipped == marked
    assert sum(skipped.values()) > 0
