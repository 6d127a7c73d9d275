import re

from pellucid.data.readers import READERS
from pellucid.data.registry import DATASETS

LANGUAGES = ("bn", "de", "en", "es", "fr", "ja", "ru", "sw", "te", "th", "zh")
PUBLISHED_ROWS = {
    "gsm8k": {"train": 7473, "test": 1319},
    "math": {"train": 7500, "test": 5000},
    "math-500": {"test": 500},
    "aime-2024": {"test": 30},
    "aime-2025": {"test": 30},
    "amc-2023": {"test": 40},
    "dapo-math-17k": {"train": 17398},
    "svamp": {"test": 1000},
    "gsm-plus": {"test": 2400},
    "mbpp": {"train": 374, "test": 500, "validation": 90, "prompt": 10},
    "arc-challenge": {"test": 1150, "dev": 294},
    "mmlu": {"test": 14042, "val": 1531, "dev": 285},
    "ifeval": {"test": 541},
    "ifbench": {"test": 300},
    "mgsm": dict.fromkeys(LANGUAGES, 250),
}


def test_the_registry_holds_the_published_row_counts():
    assert {n: {s.name: s.rows for s in d.splits} for n, d in DATASETS.items()} == PUBLISHED_ROWS


def test_every_entry_is_pinned_dated_and_licensed():
    for dataset in DATASETS.values():
        assert re.fullmatch(r"[0-9a-f]{40}", dataset.revision), dataset.name
        assert re.fullmatch(r"20\d\d-\d\d(-\d\d)?", dataset.first_public), dataset.name
        assert dataset.licence
        assert dataset.reader in READERS
        for split in dataset.splits:
            assert re.fullmatch(r"[0-9a-f]{64}", split.original_sha256), dataset.name
            assert re.fullmatch(r"[0-9a-f]{64}", split.content_sha256), dataset.name
            assert split.remote_files


def test_digests_are_not_shared_between_splits():
    digests = [s.content_sha256 for d in DATASETS.values() for s in d.splits]
    assert len(set(digests)) == len(digests)
