"""The data sets Pellucid knows, by name."""

from __future__ import annotations

from pellucid.data.dataset import Dataset, Split
from pellucid.data.general_sets import GENERAL_SETS
from pellucid.data.math_sets import MATH_SETS
from pellucid.errors import DataError
from pellucid.tasks.lookup import lookup

__all__ = ["DATASETS", "Dataset", "Split", "get_dataset"]

DATASETS: dict[str, Dataset] = {dataset.name: dataset for dataset in (*MATH_SETS, *GENERAL_SETS)}


def get_dataset(name: str) -> Dataset:
    """The data set of that name; DataError naming the nearest one."""
    return lookup(DATASETS, name, "data set", DataError)
