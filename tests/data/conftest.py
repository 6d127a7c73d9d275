"""The fixture rows as published files; the registry points at them."""

from __future__ import annotations

import pytest
from published_files import Published, fixture_entry

from pellucid.data.registry import DATASETS


@pytest.fixture(scope="session")
def _published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    folder = tmp_path_factory.mktemp("published")
    return Published(folder, {name: fixture_entry(d, folder) for name, d in DATASETS.items()})


@pytest.fixture
def published(_published: Published, monkeypatch: pytest.MonkeyPatch) -> Published:
    """Published fixture files, with the registry entries put in place of the real ones."""
    for name, dataset in _published.datasets.items():
        monkeypatch.setitem(DATASETS, name, dataset)
    return _published
