"""How a command that reads pictures into one file, which a repeated command goes on with, begins and ends.

As scoring.py is for commands that score a model. On inference/, below embed.py and predict.py.
"""

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch

from medhiera.command_line import show_progress
from medhiera.device import choose_device, log_device, log_peak_memory
from medhiera.errors import UserError
from medhiera.inference.predictions_csv import check_lists
from medhiera.output import check_output_file, make_folder, one_writer


@contextlib.contextmanager
def resumable_output(options: argparse.Namespace, name: str) -> Iterator[tuple[Path, torch.device]]:
    """Set the logging up, check what is asked for, and hold `--output`: its whole path, and the device.

    Args:
        options: the command line, with `output`, `batch_size` and `device`.
        name: of the script's logger.

    Raises:
        UserError: a number out of range, a device that is not there, or a file that cannot be written, or
            that another process writes.
    """
    show_progress(name)
    if options.batch_size < 1:
        raise UserError(f"--batch_size {options.batch_size}: wanted 1 or more images")
    check_output_file(options.output)
    device = choose_device(options.device)
    is_new = make_folder(options.output.parent, "--output")
    output = options.output.resolve()  # one file has one lock, however it is named
    try:
        check_lists(output)
        with one_writer(output, "--output"):
            log_device(device)
            yield output, device
            log_peak_memory(device)
    finally:
        if is_new:
            with contextlib.suppress(OSError):
                output.parent.rmdir()  # which an empty folder alone allows
