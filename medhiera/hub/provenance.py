"""What made a result, for its record: versions of libraries, and the commit of this code.

Below record.py.
"""

import importlib.metadata
import json
import subprocess

from medhiera.shipped_files import IS_INSTALLED, PACKAGE

LIBRARIES = ("torch", "transformers", "datasets", "accelerate", "timm")


def library_versions() -> dict[str, str]:
    """Versions of the libraries that shape a result."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def code_commit() -> str | None:
    """The commit of this clone, with `-dirty` where files were changed, or that pip installed from git.

    Returns:
        None outside of git. A repository that merely holds the environment of an installation is not asked.
    """
    if IS_INSTALLED:
        return _installed_commit()
    command = ["git", "-C", str(PACKAGE), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run([*command, "--exclude=*"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def _installed_commit() -> str | None:
    """As pip notes it beside what it installs from git (PEP 610)."""
    try:
        noted = importlib.metadata.distribution("medhiera").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:  # a copy of the package's folder, as in a Space
        return None
    commit = json.loads(noted or "{}").get("vcs_info", {}).get("commit_id")
    return str(commit) if commit else None
