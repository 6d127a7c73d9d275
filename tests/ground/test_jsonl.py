"""Append-only files: kill -9 loses nothing that was appended, and no half record is read."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from pellucid import jsonl
from pellucid.errors import RunError
from pellucid.jsonl import JsonlWriter, ZstdJsonlWriter, read_jsonl, read_zstd_jsonl

RECORDS = [{"step": s, "text": "é" * s} for s in range(5)]


def _write_plain(path, records):
    with JsonlWriter(path) as writer:
        for record in records:
            writer.append(record)


def _write_frames(path, records):
    with ZstdJsonlWriter(path) as writer:
        for record in records:
            writer.append_all([record, record | {"twin": True}])


def test_records_come_back_in_order_over_several_openings(tmp_path):
    _write_plain(tmp_path / "m.jsonl", RECORDS[:2])
    _write_plain(tmp_path / "m.jsonl", RECORDS[2:])
    assert list(read_jsonl(tmp_path / "m.jsonl")) == RECORDS
    _write_frames(tmp_path / "r.zst", RECORDS[:2])
    _write_frames(tmp_path / "r.zst", RECORDS[2:])
    assert [r for r in read_zstd_jsonl(tmp_path / "r.zst") if "twin" not in r] == RECORDS


@pytest.mark.parametrize("cut", [1, 5, 13])
def test_a_torn_last_line_is_skipped_by_readers_and_cut_by_the_next_writer(tmp_path, cut):
    path = tmp_path / "m.jsonl"
    _write_plain(path, RECORDS)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert list(read_jsonl(path)) == RECORDS[:-1]
    last = len(whole.splitlines(keepends=True)[-1])
    with JsonlWriter(path) as writer:
        assert writer.cut_bytes == last - cut
        writer.append(RECORDS[-1])
    assert path.read_bytes() == whole


def test_every_length_a_killed_zstd_writer_can_leave_is_mended(tmp_path):
    path = tmp_path / "r.zst"
    _write_frames(path, RECORDS[:1])
    first = path.stat().st_size
    _write_frames(path, RECORDS[1:2])
    whole = path.read_bytes()
    for length in range(first, len(whole)):
        path.write_bytes(whole[:length])
        assert [r["step"] for r in read_zstd_jsonl(path)] == [0, 0]
        with ZstdJsonlWriter(path) as writer:
            assert (writer.offset, writer.cut_bytes) == (first, length - first)
            writer.append_all([RECORDS[1], RECORDS[1] | {"twin": True}])
        assert path.read_bytes() == whole


def test_damage_before_the_tail_is_named_and_never_cut(tmp_path):
    plain, frames = tmp_path / "m.jsonl", tmp_path / "r.zst"
    _write_plain(plain, RECORDS)
    plain.write_bytes(plain.read_bytes().replace(b'{"step":1', b'{"step:1'))
    with pytest.raises(RunError, match=r"m.jsonl line 2 is damaged"):
        list(read_jsonl(plain))
    _write_frames(frames, RECORDS)
    raw = bytearray(frames.read_bytes())
    raw[20] ^= 0xFF
    frames.write_bytes(raw)
    with pytest.raises(RunError, match=r"r.zst is damaged after byte"):
        list(read_zstd_jsonl(frames))
    with pytest.raises(RunError, match=r"r.zst is damaged after byte"):
        ZstdJsonlWriter(frames)
    assert frames.read_bytes() == raw


def test_a_checkpoints_offset_restores_the_file_exactly(tmp_path):
    path = tmp_path / "r.zst"
    with ZstdJsonlWriter(path) as writer:
        writer.append_all(RECORDS[:2])
        offset = writer.offset
        at_checkpoint = path.read_bytes()
        writer.append_all(RECORDS[2:])
    path.write_bytes(path.read_bytes() + b"\x00 no frame at all")
    with ZstdJsonlWriter(path, at=offset) as writer:
        assert writer.offset == offset
    assert path.read_bytes() == at_checkpoint
    with pytest.raises(RunError, match="someone shortened it"):
        ZstdJsonlWriter(path, at=offset + 1)


def test_metrics_after_a_step_are_dropped(tmp_path):
    path = tmp_path / "m.jsonl"
    _write_plain(path, [{"step": s, "name": n} for s in (1, 2, 3) for n in "ab"])
    with JsonlWriter(path) as writer:
        writer.truncate_after(2)
        writer.append({"step": 3, "name": "again"})
    assert [(r["step"], r["name"]) for r in read_jsonl(path)] == [
        (1, "a"),
        (1, "b"),
        (2, "a"),
        (2, "b"),
        (3, "again"),
    ]


def test_cutting_back_names_a_damaged_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step":1}\n{"st\n{"step":2}\n')
    with JsonlWriter(path) as writer, pytest.raises(RunError, match="line 2 is damaged"):
        writer.truncate_after(2)


def test_nan_is_refused_before_anything_is_written(tmp_path):
    with JsonlWriter(tmp_path / "m.jsonl") as writer:
        with pytest.raises(ValueError, match="not JSON compliant"):
            writer.append({"loss": float("inf")})
        assert writer.offset == 0


@pytest.mark.parametrize("kind", [JsonlWriter, ZstdJsonlWriter])
def test_a_full_disk_leaves_whole_records_only(tmp_path, monkeypatch, kind):
    path = tmp_path / "file"
    writer = kind(path)
    append = writer.append if kind is JsonlWriter else lambda record: writer.append_all([record])
    append(RECORDS[1])
    before = path.read_bytes()
    real_write = os.write
    calls = []

    def half_then_full(handle, data):
        calls.append(len(data))
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_write(handle, data[: len(data) // 2])

    monkeypatch.setattr(jsonl.os, "write", half_then_full)
    with pytest.raises(RunError, match="no space left"):
        append(RECORDS[2])
    monkeypatch.setattr(jsonl.os, "write", real_write)
    assert path.read_bytes() == before
    append(RECORDS[3])
    writer.close()
    read = read_jsonl if kind is JsonlWriter else read_zstd_jsonl
    assert list(read(path)) == [RECORDS[1], RECORDS[3]]


_ENDLESS = """
import sys
from pathlib import Path
from pellucid.jsonl import JsonlWriter, ZstdJsonlWriter
folder = Path(sys.argv[1])
plain, frames = JsonlWriter(folder / "m.jsonl"), ZstdJsonlWriter(folder / "r.zst")
step = 0
while True:
    plain.append({"step": step, "text": "x" * 2000})
    frames.append_all([{"step": step, "row": row, "text": "y" * 500} for row in range(8)])
    print(step, flush=True)
    step += 1
"""


@pytest.mark.parametrize("steps", [3, 40])
def test_a_writer_killed_with_sigkill_loses_nothing_it_reported(tmp_path, steps):
    command = [sys.executable, "-c", _ENDLESS, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while int(process.stdout.readline()) < steps:
            pass
        process.send_signal(signal.SIGKILL)
        reported = max([steps, *(int(line) for line in process.stdout if line.endswith("\n"))])
        assert process.wait() == -signal.SIGKILL
    with JsonlWriter(tmp_path / "m.jsonl"), ZstdJsonlWriter(tmp_path / "r.zst"):
        pass
    plain = [r["step"] for r in read_jsonl(tmp_path / "m.jsonl")]
    rows = [(r["step"], r["row"]) for r in read_zstd_jsonl(tmp_path / "r.zst")]
    assert plain == list(range(len(plain)))
    assert rows == [(s, r) for s in range(len(rows) // 8) for r in range(8)]
    assert len(plain) > reported
    assert len(rows) // 8 > reported
