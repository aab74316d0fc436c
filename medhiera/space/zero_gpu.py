"""A GPU for the length of a call, on a Space with ZeroGPU; elsewhere nothing changes.

Such a Space brings the package `spaces`, which must be imported before PyTorch and lends a GPU to a function
that is marked: the function runs in a process that is forked at its first call and kept for later ones, and
what goes in and comes out is pickled. app.py imports this file before PyTorch.
"""

import importlib.util
import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

IS_THERE = bool(os.environ.get("SPACES_ZERO_GPU")) and importlib.util.find_spec("spaces") is not None
"""Spaces sets the variable where a GPU is lent; the package alone is on other Spaces too."""

if IS_THERE:
    import spaces

SECONDS = 30
"""The longest that one picture may hold the GPU: probabilities and heat map take a second or two."""


def on_gpu(function: Callable[P, R]) -> Callable[P, R]:
    """The function, run with a GPU where Spaces lends one; else the function itself.

    Args:
        function: its arguments and its result can be pickled. Of everything else it may see only what was
            there at its first call.
    """
    if not IS_THERE:
        return function
    lent: Callable[P, R] = spaces.GPU(duration=SECONDS)(function)
    return lent
