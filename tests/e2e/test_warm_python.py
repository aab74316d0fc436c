"""What the tests run commands with does what Python does: arguments, folder, environment, output, status."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from warm_python import NOTED, warm_python

SCRIPT = """
import json, os, pathlib, subprocess, sys, time
def answer():
    return [sys.argv, os.getcwd(), os.environ["ASKED"], __name__, __file__, sys.path[0]]
print(json.dumps(answer()), flush=True)
if sys.argv[1] == "nested":
    done = subprocess.run([sys.executable, "-W", "ignore", __file__, "3"], stdout=subprocess.PIPE, text=True)
    sys.exit(done.returncode + (done.stdout.count("__main__") != 1))
if sys.argv[1] == "wait":
    time.sleep(100)
sys.exit({"0": None, "3": 3, "text": "what is wrong"}[sys.argv[1]])
"""


@pytest.fixture
def script(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    return tmp_path / "script.py"


def run(python, folder, *words):
    environment = os.environ | {"ASKED": "mine", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([python, *words], cwd=folder, env=environment, text=True, capture_output=True)
    return done.returncode, done.stdout, done.stderr.splitlines()[-1:]


@pytest.mark.parametrize("how", [["script.py"], ["-u", "-W", "ignore", "script.py"], ["-m", "script"]])
@pytest.mark.parametrize("word", ["0", "3", "text", "a trace"])
def test_it_is_what_python_does(how, word, script):
    wanted = run(sys.executable, script.parent, *how, word)
    assert wanted[0] == {"0": 0, "3": 3}.get(word, 1)
    found = run(warm_python(), script.parent, *how, word)
    assert [json.loads(each[1])[:4] for each in (found, wanted)] == [json.loads(wanted[1])[:4]] * 2
    assert (found[0], found[2]) == (wanted[0], wanted[2])


def test_what_it_starts_is_warm_and_what_is_isolated_is_not(script):
    assert run(warm_python(), script.parent, script.name, "nested")[0] == 3
    code = "import sys; sys.exit('torch' in sys.modules)"
    assert run(warm_python(), script.parent, "-I", "-c", code)[0] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_command_ends_with_the_one_that_was_started(script, tmp_path, number):
    if warm_python() == sys.executable:
        pytest.skip(
            "with a GPU, or without Linux, Python itself is started: there is no server whose end is asked"
        )
    (tmp_path / "noted").mkdir()
    environment = os.environ | {"ASKED": "mine", NOTED: str(tmp_path / "noted")}
    process = subprocess.Popen(
        [warm_python(), str(script), "wait"], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline().startswith('[["')
    ends = time.monotonic() + 30
    while not (noted := list((tmp_path / "noted").iterdir())) and time.monotonic() < ends:
        time.sleep(0.05)
    process.send_signal(number)
    process.communicate()
    assert process.returncode == -number
    ends = time.monotonic() + 30
    while psutil.pid_exists(int(noted[0].name)) and time.monotonic() < ends:
        time.sleep(0.05)
    assert not psutil.pid_exists(int(noted[0].name))
