"""Two processes and one place to write, a killed one's lock, Ctrl-C: real processes and real signals."""

import csv
import os
import re
import signal
import subprocess
import time

import pytest
from page_fixtures import phantom, write_stage2
from PIL import Image
from warm_python import start_warm, warm_python


@pytest.fixture(scope="module")
def stage2(tmp_path_factory):
    return write_stage2(tmp_path_factory.mktemp("stage2"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """More than a process reads before a test can send it a signal."""
    folder = tmp_path_factory.mktemp("pictures") / "in"
    folder.mkdir()
    Image.fromarray(phantom()).save(folder / "0.png", compress_level=0)
    for number in range(1, 600):
        os.link(folder / "0.png", folder / f"{number}.png")
    return folder


def start(root, printed, script, *words, cwd=None):
    """A script whose output goes to a file, and the number of its process and process group."""
    with printed.open("w") as file:
        return start_warm(
            [str(root / script), *map(str, words)], cwd=cwd or root, stdout=file,
            stderr=subprocess.STDOUT, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip


def wait_for(is_there, process, printed):
    deadline = time.monotonic() + 200
    while not is_there():
        assert process.poll() is None and time.monotonic() < deadline, printed.read_text()
        time.sleep(0.02)


def lines(file):
    return file.read_text().count("\n") if file.is_file() else 0


def test_one_predict_at_a_time_and_a_killed_one_is_no_hindrance(root, stage2, pictures, tmp_path):
    output, printed = tmp_path / "out.csv", tmp_path / "printed"
    words = ["--model", stage2, "--batch_size", "1", "--output"]
    first, pid = start(root, printed, "predict.py", *words, output, pictures)
    wait_for(lambda: lines(output) > 1, first, printed)
    os.kill(pid, signal.SIGSTOP)  # it holds the CSV for as long as it takes
    (tmp_path / "link.csv").symlink_to(output)
    second = subprocess.run(
        [warm_python(), "predict.py", *map(str, words), str(tmp_path / "link.csv"), str(pictures)],
        cwd=root, text=True, capture_output=True,
    )  # fmt: skip
    assert second.returncode == 1
    [message] = second.stderr.splitlines()
    assert re.fullmatch(
        rf"predict.py: --output \S+out.csv: process {pid} on \S+ \(predict.py, since .*\) is writing "
        r"there\. Wait for its end, .*",
        message,
    )
    os.kill(pid, signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    assert (tmp_path / ".out.csv.lock").is_file()  # a stale one
    third, _ = start(
        root, printed, "predict.py", *words, "out.csv", os.path.relpath(pictures, tmp_path), cwd=tmp_path
    )
    assert third.wait(timeout=300) == 0, printed.read_text()
    with output.open(newline="") as file:
        names = [os.path.basename(row["path"]) for row in csv.DictReader(file)]
    assert sorted(names) == sorted(path.name for path in pictures.iterdir())
    assert not (tmp_path / ".out.csv.lock").exists()


def test_ctrl_c_ends_predict_with_one_line(root, stage2, pictures, tmp_path):
    output, printed = tmp_path / "out.csv", tmp_path / "printed"
    words = ["--model", stage2, "--batch_size", "1", "--output", output, pictures]
    process, pid = start(root, printed, "predict.py", *words)
    wait_for(lambda: lines(output) > 1, process, printed)
    os.killpg(pid, signal.SIGINT)
    assert process.wait(timeout=60) == 130, printed.read_text()
    said = printed.read_text()
    assert "Traceback" not in said
    assert said.splitlines()[-1] == (
        "predict.py: interrupted; finished rows are kept: repeat the command to resume"
    )
    header, *rows = output.read_text().splitlines()
    assert rows and all(row.count(",") == header.count(",") for row in rows)  # none was cut
