"""Events as lines of JSON: how a command began, what it warned of, and how it ended."""

import json
import re
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from normalisr_dask.cli.event_log import event_log


def events_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_lines_are_added_to_those_of_earlier_commands(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for command in ("ingest", "run"):
        with event_log(str(path), command) as log:
            log.write("stage_started", stage="café")
    events = events_of(path)
    assert [event["event"] for event in events] == ["started", "stage_started", "finished"] * 2
    assert [event["command"] for event in events if event["event"] == "started"] == ["ingest", "run"]
    assert events[1]["stage"] == "café"
    times = [datetime.fromisoformat(event["time"]) for event in events]
    assert times == sorted(times)


def test_a_log_may_be_an_empty_file_or_no_regular_one(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.touch()
    for file in (str(path), "/dev/null"):
        with event_log(file, "run"):
            pass
    assert [event["event"] for event in events_of(path)] == ["started", "finished"]


@pytest.mark.parametrize(
    "content", [b"\x1f\x8b\x08\0", b"cell\tg0\n", b"{\n", b"[1]\n", b"[" * 20_000, b'{"time": 1}\n', b"\n"]
)
def test_nothing_is_added_to_what_is_no_log(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(content)
    with (
        pytest.raises(ValueError, match="holds something else than a log of earlier commands"),
        event_log(str(path), "run"),
    ):
        pass
    assert path.read_bytes() == content


def test_a_log_is_not_taken_into_a_store_or_an_output_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "counts.zarr").mkdir()
    (tmp_path / "counts.zarr" / "zarr.json").write_text("{}")
    (tmp_path / "out").mkdir()
    for folder, output, said in (("counts.zarr", None, "inside the store"), ("out", tmp_path / "out", "own output")):
        link = tmp_path / f"link_to_{folder}"
        link.symlink_to(folder)
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(ValueError, match=said), event_log(f"{link}/log", "run", output and str(output)):
            pass
        assert sorted(tmp_path.rglob("*")) == before
    with event_log(f"{tmp_path}/counts.zarr/../log", "run"):
        pass


def log_command(path: Path, *, ends_with: BaseException | None = None, warns: str | None = None) -> None:
    with event_log(str(path), "run"):
        for _ in range(2 if warns else 0):
            warnings.warn(warns, UserWarning, stacklevel=1)
        if ends_with is not None:
            raise ends_with


def test_the_error_of_a_command_is_its_last_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for error, said in (
        (ValueError("there is\nno such store"), "there is no such store"),
        (KeyboardInterrupt(), "inter"),
    ):
        with pytest.raises(type(error)):
            log_command(path, ends_with=error)
        last = events_of(path)[-1]
        assert last["event"] == "failed"
        assert last["error"].startswith(said)


def test_warnings_are_logged_once_and_shown(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with pytest.warns(UserWarning, match="few cells"):
        log_command(path, warns="few cells")
    assert [event["message"] for event in events_of(path) if event["event"] == "warning"] == ["few cells"]


def test_without_a_file_nothing_is_written(tmp_path: Path) -> None:
    with event_log(None, "run") as log:
        log.write("stage_started", stage="qc")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path))), event_log(f"{tmp_path}/no/log", "run"):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a file that is always full: /dev/full")
def test_a_full_disk_ends_the_log_and_not_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with event_log("/dev/full", "run") as log:
        log.write("stage_started", stage="qc")
    assert capsys.readouterr().err == (
        "normalisr-dask: warning: --log-json: nothing more is logged: No space left on device\n"
    )
