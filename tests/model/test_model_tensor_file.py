"""What a disk refuses is an OSError with its number, whatever safetensors makes of it."""

import errno

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from pellucid.model.tensor_file import save_file


def test_tensors_and_metadata_arrive(tmp_path):
    save_file({"a": torch.arange(3.0)}, tmp_path / "x.safetensors", metadata={"format": "pt"})
    assert load_file(tmp_path / "x.safetensors")["a"].tolist() == [0.0, 1.0, 2.0]


def test_a_missing_folder_is_the_error_of_the_operating_system(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        save_file({"a": torch.zeros(3)}, tmp_path / "none" / "x.safetensors")
    assert caught.value.filename == str(tmp_path / "none" / "x.safetensors")


@pytest.mark.parametrize(
    "text",
    [
        "Error while serializing: I/O error: No space left on device (os error 28)",
        'Error while serializing: IoError(Os { code: 28, kind: StorageFull, message: "full" })',
    ],
)
def test_a_full_disk_is_recognised_in_the_words_of_every_release(monkeypatch, tmp_path, text):
    def full(*_given, **_named):
        raise SafetensorError(text)

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space left") as caught:
        save_file({"a": torch.zeros(3)}, tmp_path / "x.safetensors")
    assert caught.value.errno == errno.ENOSPC


def test_other_errors_of_the_library_stay_as_they_are(monkeypatch, tmp_path):
    def refuse(*_given, **_named):
        raise SafetensorError("InvalidTensorView")

    monkeypatch.setattr("safetensors.torch.save_file", refuse)
    with pytest.raises(SafetensorError, match="InvalidTensorView"):
        save_file({"a": torch.zeros(3)}, tmp_path / "x.safetensors")
