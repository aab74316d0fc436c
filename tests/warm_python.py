"""A Python that has imported what the commands import: they start in a moment, not in ten seconds.

`warm_python()` stands where a test would write `sys.executable`. It is a program that takes a script, or `-m`
and a module, as Python does, with its own arguments, folder, environment, output, signals and exit status.
The command runs in a process of its own, forked from one that has done the imports; `-I` and `-c` get Python.
Not for tests of what a command imports, of a variable that libraries read when imported (but for the Hub's
address and its cache), or of the CPU seconds of a process' children (this one's are the server's).
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NOTED = "WARM_PYTHON_NOTES"
"""A variable that names a folder: each command leaves a file there whose name is its process' number."""

SCRIPTS = ("train_mae", "train_cls", "train_report", "evaluate_cls", "evaluate_report", "predict", "probe",
           "embed", "reproduce", "demo")  # fmt: skip


@functools.cache
def warm_python() -> str:
    """The program's path; Python's own where processes cannot be forked so: on a GPU, or without Linux."""
    import torch

    if torch.cuda.is_available() or not hasattr(os, "pidfd_open"):
        return sys.executable
    folder = Path(tempfile.mkdtemp(prefix="warm"))
    program = folder / "python"
    words = [sys.executable, "-I", "-S", __file__, "ask", str(folder / "socket")]
    program.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    program.chmod(0o755)
    # Its input is a pipe from here: where this process ends, however it ends, so does the other.
    words = [sys.executable, __file__, "serve", str(folder)]
    server = subprocess.Popen(words, stdin=subprocess.PIPE, cwd=ROOT)
    assert server.stdin is not None
    atexit.register(server.wait)
    atexit.register(server.stdin.close)
    deadline = time.monotonic() + 600
    while not (folder / "socket").exists():
        assert server.poll() is None and time.monotonic() < deadline, "the warm Python did not start"
        time.sleep(0.05)
    return str(program)


def start_warm(words: Sequence[str], **options: Any) -> tuple["subprocess.Popen[str]", int]:
    """Start a command in a process group of its own; also the number of the process that is the command.

    What is sent to that number or its group, SIGKILL and SIGSTOP too, meets the command and its workers; the
    process returned ends as the command did.
    """
    noted = Path(tempfile.mkdtemp(prefix="noted"))
    atexit.register(shutil.rmtree, noted)
    environment = options.pop("env", os.environ) | {NOTED: str(noted)}
    process = subprocess.Popen([warm_python(), *words], start_new_session=True, env=environment, **options)
    if warm_python() == sys.executable:
        return process, process.pid
    while process.poll() is None and not list(noted.iterdir()):
        time.sleep(0.01)
    [begun] = noted.iterdir()
    return process, int(begun.name)


def ask(address: str, words: Sequence[str]) -> int:
    """Have a command run with this process' input and output; its exit status. Signals go on to it."""
    own = [word for word in words[: first_word(words)] if word not in ("-u", "-W", "ignore")]
    if own or "-c" in words[:3]:
        os.execv(sys.executable, [sys.executable, *words])
    request = {"words": words, "folder": os.getcwd(), "environment": dict(os.environ)}
    request["leads"] = os.getsid(0) == os.getpid()  # a process group of its own, to be signalled
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [json.dumps(request).encode() + b"\n"], [0, 1, 2])
        answers = connection.makefile()
        pid = int(answers.readline())
        if NOTED in os.environ:
            Path(os.environ[NOTED], str(pid)).touch()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, frame: os.kill(pid, number))
        status = int(answers.readline())
    if status < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no other
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


def first_word(words: Sequence[str]) -> int:
    """Where Python's own options end: at the script, or at -m."""
    index = 0
    while index < len(words) and words[index].startswith("-") and words[index] != "-m":
        index += 2 if words[index] == "-W" else 1
    return index


def serve(folder: Path) -> dict[str, Any]:
    """Import, then fork for each request until the one who started this is gone; returns in the commands."""
    sys.path.insert(0, str(ROOT))
    for name in SCRIPTS:
        __import__(name)
    gc.freeze()  # what is here is here for good: no process that is forked looks through it
    signal.signal(signal.SIGCHLD, lambda *_: reap())
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "bound"))
    listener.listen(16)
    (folder / "bound").rename(folder / "socket")
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()
            os._exit(0)
        connection, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            request = receive(connection)
            request["python"] = str(folder / "python")
            pid = os.fork()
            if pid == 0:
                connection.close()
                return request
            os._exit(watch(connection, pid))
        connection.close()


def reap() -> None:
    """Take notice of children that ended, so that their CPU seconds count as this process' children's."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def receive(connection: socket.socket) -> dict[str, Any]:
    """A request; its files become this process' input and output."""
    data, files, _, _ = socket.recv_fds(connection, 65536, 3)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    while not data.endswith(b"\n"):
        data += connection.recv(65536)
    request: dict[str, Any] = json.loads(data)
    return request


def watch(connection: socket.socket, pid: int) -> int:
    """Tell who asked which process it is and how it ended; end it where that one was ended."""
    ended = os.pidfd_open(pid)
    with contextlib.suppress(BrokenPipeError):
        connection.send(f"{pid}\n".encode())
    ready, _, _ = select.select([ended, connection], [], [])
    if ended not in ready:
        os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with contextlib.suppress(BrokenPipeError):
        connection.send(f"{status}\n".encode())
    return 0


def read_hub_settings() -> None:
    """Read the Hub's address and the caches' again, as the libraries did when they were imported."""
    import datasets
    import huggingface_hub.utils.tqdm as bars
    from huggingface_hub import constants, hf_api

    for module in (constants, datasets.config):
        importlib.reload(module)
    hf_api.api.endpoint = constants.ENDPOINT
    bars.HF_HUB_DISABLE_PROGRESS_BARS = constants.HF_HUB_DISABLE_PROGRESS_BARS


def run_command(request: Mapping[str, Any]) -> None:
    """Become the command: folder, environment, arguments; then what Python does with a script or a module."""
    import datasets
    import torch

    datasets.fingerprint.fingerprint_rng.seed()  # or each command would draw the same names for its files
    tempfile.tempdir = None  # TMPDIR of its own
    os.chdir(request["folder"])
    if request["leads"]:
        os.setsid()
    os.environ.clear()
    os.environ.update(request["environment"])
    if "HF_ENDPOINT" in os.environ:
        read_hub_settings()
    sys.executable = request["python"]  # what it starts is warm too
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)
    if "OMP_NUM_THREADS" in os.environ:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    words = list(request["words"])
    start = first_word(words)
    if "ignore" in (*words[:start], os.environ.get("PYTHONWARNINGS")):
        warnings.simplefilter("ignore")
    unbuffered = "-u" in words[:start] or "PYTHONUNBUFFERED" in os.environ
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=stream is sys.stderr, write_through=unbuffered)
    words = words[start:]
    if words[0] == "-m":
        sys.argv, sys.path[0] = words[1:], os.getcwd()
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        return
    sys.argv, sys.path[0] = words, str(Path(words[0]).resolve().parent)
    sys.modules["__main__"] = main = types.ModuleType("__main__")
    main.__file__ = words[0]
    exec(compile(Path(words[0]).read_bytes(), words[0], "exec"), main.__dict__)


def end(command: Callable[[], None]) -> None:
    """Run it and end this process as Python would, but for taking every imported module apart (seconds)."""
    status = 0
    try:
        command()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        if status and not isinstance(error.code, int):
            print(error.code, file=sys.stderr)
    except BaseException:
        status = 1
        traceback.print_exc()
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


if __name__ == "__main__":
    if sys.argv[1] == "ask":
        sys.exit(ask(sys.argv[2], sys.argv[3:]))
    request = serve(Path(sys.argv[2]))
    end(lambda: run_command(request))
