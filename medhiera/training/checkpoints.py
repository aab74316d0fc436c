"""Which checkpoints are complete, which one to resume from, and what a failed write means."""

import json
import logging
import re
import shutil
from pathlib import Path

from transformers import TrainerState, TrainingArguments
from transformers.trainer_utils import rotate_checkpoints

from dataset_scripts.build.atomic_files import part_of, sync_file, write_json
from medhiera.errors import UserError
from medhiera.layout import (
    COMPLETE_FILE,
    LOG_FILE,
    RUN_FILE,
    RUN_OUTPUT,
    is_finished,
    present,
    share_weights,
)
from medhiera.training.best_step import best_step, evaluations

logger = logging.getLogger(__name__)

_NAME = re.compile(r"checkpoint-(\d+)")


def mark_complete(checkpoint: Path) -> None:
    """Declare a checkpoint complete: everything in it has been written, and would survive a power cut."""
    share_weights(checkpoint)
    mark = checkpoint / COMPLETE_FILE
    files = [path for path in sorted(checkpoint.rglob("*")) if path.is_file()]
    files = [path for path in files if path not in (mark, part_of(mark))]
    for path in files:
        sync_file(path)
    sizes = {path.relative_to(checkpoint).as_posix(): path.stat().st_size for path in files}
    write_json(mark, sizes, indent=1)


def is_complete(checkpoint: Path) -> bool:
    """Whether the checkpoint was declared complete and each of its files still has its size."""
    try:
        sizes = json.loads((checkpoint / COMPLETE_FILE).read_text(encoding="utf-8"))
        return all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def by_step(output: Path) -> list[Path]:
    """All checkpoint-N folders, complete or not, the latest first."""
    if not output.is_dir():
        return []
    found = [(int(match[1]), path) for path in output.iterdir() if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True) if path.is_dir()]


def latest_complete(output: Path) -> Path | None:
    """The latest complete checkpoint, or None."""
    return next((path for path in by_step(output) if is_complete(path)), None)


def check_unfinished(output: Path, wanted: str | bool | None) -> None:
    """Refuse a folder whose files would be overwritten: a finished stage's, or those that no run wrote.

    A run that goes on from a checkpoint of the same folder may write its stage again.

    Args:
        output: the run's folder.
        wanted: `resume_from_checkpoint`.

    Raises:
        UserError: as said.
    """
    is_new = wanted in (None, False, "false", "False")
    named = None if is_new or wanted in (True, "true", "True") else Path(str(wanted))
    begins_here = is_new or (named is not None and named.resolve().parent != output.resolve())
    if begins_here and is_finished(output):
        raise UserError(f"{output} already holds a finished stage; choose another --output_dir, or move it")
    if not _is_of_a_run(output):
        names = [path.name for path in reversed(by_step(output))]
        if others := present(output, (*RUN_OUTPUT, *names)):
            raise UserError(
                f"{output} holds {', '.join(others)}, which no run of ours wrote and this one would "
                "overwrite; choose another --output_dir, or move them"
            )


def _is_of_a_run(output: Path) -> bool:
    """Whether a run of ours began in a folder; the log is the first file that it writes."""
    begun = (output / LOG_FILE).is_file() or (output / RUN_FILE).is_file()
    return begun or latest_complete(output) is not None


def checkpoint_faults(output: Path, wanted: str | bool | None) -> list[str]:
    """What keeps a run from starting or resuming in a folder: a sentence, or nothing.

    Args:
        output: the run's folder.
        wanted: `resume_from_checkpoint`.
    """
    try:
        check_unfinished(output, wanted)
        find_checkpoint(output, wanted)
    except UserError as error:
        return [str(error)]
    return []


def find_checkpoint(output: Path, wanted: str | bool | None) -> str | None:
    """The checkpoint to resume from: the one named, or for `true` the latest complete one in the folder.

    Args:
        output: the run's folder.
        wanted: `resume_from_checkpoint`: a folder, true, or false or None for a new run.

    Raises:
        UserError: `true` where there is no complete checkpoint; a folder that is none or is damaged; or
            a new run in a folder that already holds a complete one.
    """
    whole = latest_complete(output)
    if wanted in (None, False, "false", "False"):
        if whole is not None:
            raise UserError(
                f"{output} already holds {whole.name} of a run that has not ended; resume it with "
                "--resume_from_checkpoint true, or choose another --output_dir"
            )
        return None
    if wanted in (True, "true", "True"):
        if whole is not None:
            return str(whole)
        if there := by_step(output):
            raise UserError(
                f"nothing to resume: {', '.join(path.name for path in there)} in {output} is incomplete (the "
                "run was ended while it was written); start without the flag"
            )
        raise UserError(f"nothing to resume: {output} holds no checkpoint-N folder; start without the flag")
    named = Path(str(wanted))
    if not (named / "trainer_state.json").is_file():
        raise UserError(
            f"{wanted} is no checkpoint (it has no trainer_state.json); name a checkpoint-N folder"
        )
    if not is_complete(named):
        raise UserError(f"{wanted} is incomplete: it was not written to its end; name an earlier one")
    return str(named)


def find_best(resumed: Path, training: TrainingArguments, state: TrainerState) -> None:
    """Note in the state where the best checkpoint so far is: its path may be relative to another folder.

    Earlier versions also took a step between two checkpoints for the best; then the best is of those kept.

    Args:
        resumed: the checkpoint that a run resumes from.
        training: of the run.
        state: as that checkpoint has it.

    Raises:
        UserError: it is nowhere, and the best is to be kept.
    """
    if not state.best_global_step:
        return
    # The state at hand no longer names a folder that is not found from here.
    noted = TrainerState.load_from_json(str(resumed / "trainer_state.json")).best_model_checkpoint or ""
    name = f"checkpoint-{state.best_global_step}"
    places = [resumed.parent / name, Path(training.output_dir) / name]
    places += [Path(noted)] if Path(noted).name == name else []
    best = next((place for place in places if is_complete(place)), None)
    if best is not None:
        state.best_model_checkpoint = str(best)
    elif not training.load_best_model_at_end:
        return
    elif Path(noted).name != name:  # the Trainer notes a folder once it exists
        _take_best_kept(resumed, training, state)
    else:
        raise UserError(
            f"{resumed.name} is of a run whose best step so far is {state.best_global_step}, and no complete "
            f"{name} is beside it or in the output_dir: a later step that is worse would be kept under its "
            "name. Put that folder back; or resume from a checkpoint before it; or keep the last step's "
            "weights: --load_best_model_at_end false"
        )


def _take_best_kept(resumed: Path, training: TrainingArguments, state: TrainerState) -> None:
    """Make the best step in the state the best of those that have a complete checkpoint, or none."""
    folders = [*by_step(Path(training.output_dir)), *by_step(resumed.parent)]
    kept = {int(path.name.removeprefix("checkpoint-")): path for path in folders if is_complete(path)}
    scores = {step: score for step, score in evaluations(training, state).items() if step in kept}
    best = best_step(scores, training.greater_is_better)
    logger.warning(
        "%s names step %d as the best so far, which was never saved: an earlier version evaluated it between "
        "two checkpoints. %s",
        resumed.name, state.best_global_step,
        "None that was saved has a score: the best is sought from here on" if best is None else
        f"The best of those that were saved is step {best}",
    )  # fmt: skip
    state.best_global_step = best
    state.best_metric = None if best is None else scores[best]
    state.best_model_checkpoint = None if best is None else str(kept[best])


def incomplete(output: Path) -> list[Path]:
    """Checkpoints that were not written to their end."""
    return [path for path in by_step(output) if not is_complete(path)]


def rotate(output: Path, limit: int | None, best: str | None) -> None:
    """Remove what does not count, then the oldest beyond the limit; the newest and the best stay.

    Args:
        output: the run's folder.
        limit: `save_total_limit`.
        best: the best checkpoint's folder, or None.
    """
    for path in incomplete(output):
        shutil.rmtree(path, ignore_errors=True)
        logger.info("removed %s, which a run that was ended had left incomplete", path.name)
    rotate_checkpoints(str(output), save_total_limit=limit, best_model_checkpoint=best, use_mtime=True)


def last_checkpoint(args: TrainingArguments) -> str | None:
    """The checkpoint to resume from; incomplete ones are logged.

    Raises:
        UserError: see find_checkpoint.
    """
    output = Path(args.output_dir)
    found = find_checkpoint(output, args.resume_from_checkpoint)
    if found is not None:
        for path in incomplete(output):
            logger.warning(
                "%s is incomplete (the run ended while it was written); resuming from %s",
                path.name, Path(found).name,
            )  # fmt: skip
    return found


def is_failed_write(error: BaseException) -> bool:
    """Whether a disk did not take a file: Python, torch and safetensors each say it in their own way."""
    text = str(error).lower()
    phrases = ("no space left", "file too large", "quota", "file write failed", "unexpected pos", "i/o error")
    return isinstance(error, OSError) or any(phrase in text for phrase in phrases)


def failed_write_message(checkpoint: Path, error: BaseException) -> str:
    """What was lost, and where the run can resume from."""
    before = latest_complete(checkpoint.parent)
    reason = " ".join(str(error).split())
    if "inline_container" in reason:  # torch.save counts bytes and does not say what the disk said
        reason = "the disk took only a part of it"
    rest = f"{before.name} before it is complete" if before else "there is none before it"
    return (
        f"{checkpoint.name} could not be written ({reason}) and was removed; {rest}. "
        "Make room on the disk, then resume with --resume_from_checkpoint true"
    )
