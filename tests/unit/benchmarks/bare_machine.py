"""An environment in which a command finds no other package than a bare GPU machine has or is brought."""

import os
from collections.abc import Iterable
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.utils import canonicalize_name

from benchmarks.gpu_bundle import (
    NOT_NEEDED,
    OF_TESTS,
    PEERS,
    PRESENT,
    missing_packages,
    needs_of,
    project_packages,
)

ROOT = Path(__file__).resolve().parents[3]

# Read by Python when it starts, so that processes that are started in turn find no more.
HIDING = """
from importlib.machinery import PathFinder
find = PathFinder.find_spec
def find_what_is_there(cls, name, path=None, target=None):
    return None if name.partition(".")[0] in {hidden!r} else find(name, path, target)
PathFinder.find_spec = classmethod(find_what_is_there)
"""


def hidden_modules() -> set[str]:
    """What is installed here alone, by the name that is imported."""
    there = with_needs({"pytest", *PRESENT, *missing_packages([*project_packages(), *PEERS, *OF_TESTS])})
    modules = packages_distributions()
    return {name for name, of in modules.items() if not there & {canonicalize_name(one) for one in of}}


def with_needs(names: Iterable[str]) -> set[str]:
    """Packages and all that they need."""
    found = set(names)
    waiting = list(found)
    while waiting:
        try:
            needs = set(needs_of(waiting.pop())) - found - NOT_NEEDED
        except ModuleNotFoundError:  # triton, beside a PyTorch without CUDA
            continue
        found |= needs
        waiting += needs
    return found


def bare_environment(folder: Path) -> dict[str, str]:
    """Variables of the environment of such commands.

    Args:
        folder: an empty one.
    """
    (folder / "sitecustomize.py").write_text(HIDING.format(hidden=hidden_modules()))
    own = {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    return own | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # hidden plugins announce themselves
