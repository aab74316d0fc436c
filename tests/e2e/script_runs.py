"""Runs a script of the clone in a process of its own."""

import os
import subprocess
from pathlib import Path


def run_script(root: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command in the clone to its end; stdout has what it printed, errors too."""
    return subprocess.run(
        command, cwd=root, env=os.environ | {"PYTHONWARNINGS": "ignore"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300,
    )  # fmt: skip
