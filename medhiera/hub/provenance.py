"""What made a result, for its record: versions of libraries, and the commit of this code.

Below record.py.
"""

import importlib.metadata
import subprocess
from pathlib import Path

LIBRARIES = ("torch", "transformers", "datasets", "accelerate", "timm")


def library_versions() -> dict[str, str]:
    """Versions of the libraries that shape a result."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def code_commit() -> str | None:
    """The commit of this clone, with `-dirty` where files were changed; None outside of git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run([*command, "--exclude=*"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
