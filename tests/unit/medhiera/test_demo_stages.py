"""What the demo says of a step that did not succeed: the signal that ended it, or where its message is."""

import os
import runpy
import signal
import subprocess
import sys

import pytest

from medhiera import errors
from medhiera.demo_stages import how_it_ended


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (-15, "SIGTERM (signal 15)"),
        (143, "SIGTERM (signal 15)"),
        (130, "SIGINT (signal 2)"),
        (-9, "SIGKILL (signal 9)"),
    ],
)
def test_a_step_that_a_signal_ended_says_which_and_that_it_resumes(status, words):
    said = how_it_ended(status)
    assert f"was ended by {words}" in said and "repeat the command, and it resumes" in said
    assert "stands above" not in said


@pytest.mark.parametrize("status", [1, 2, 255])
def test_any_other_status_points_to_the_message(status):
    assert how_it_ended(status) == f"a step ended with exit code {status}; its message stands above"


@pytest.mark.parametrize("script", ["demo.py", "demo_report.py"])
def test_a_demo_says_so_of_a_process_that_was_really_ended(script, root, monkeypatch):
    def ended(*arguments):
        code = f"import os; os.kill(os.getpid(), {int(signal.SIGTERM)})"
        subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)

    monkeypatch.setattr(errors, "run_script", ended)
    monkeypatch.setattr(sys, "argv", [script])
    with pytest.raises(SystemExit, match=rf"^{script}: a step was ended by SIGTERM \(signal 15\)"):
        runpy.run_path(str(root / script), run_name="__main__")
