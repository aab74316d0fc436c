"""What is pre-training worth on a real task, on a machine of two cores? docs/small_result.md.

Stands beside the project; nothing imports it. The task is pneumonia on Kermany's radiographs of children,
with the official test split; the cocktail beside it holds copies of its images, which the leakage guard
removes where they show held-out ones. small_data.py writes both, small_plan.py says what is run and in which
order, small_report.py makes the tables and the figure.

    python -m benchmarks.small_result --shared ../shared --output_dir runs/small

Every run is a process of train_mae.py, train_cls.py or resnet_baseline.py. What is finished is skipped and
what was interrupted resumes from its checkpoint, so the same command continues. `--report` makes the tables
of what there is, `--plan` says what is left. CPU seconds go to hours.csv; nothing is begun beyond
`--cap_hours`.
"""

import argparse
import json
import logging
import os
import resource
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.small_data import prepare
from benchmarks.small_laboratory import (
    HOURS,
    IMAGE_SIZE,
    Laboratory,
    hours_used,
    is_done,
    name_of,
    note_hours,
    short_name,
)
from benchmarks.small_plan import (
    CONTESTANTS,
    FULL,
    PRETRAININGS,
    SMOKE,
    SWEEP_SEED,
    Work,
    classifier_arm,
    next_rate,
    ordered,
    pretraining_arm,
)
from benchmarks.small_report import report
from benchmarks.small_score import encoder_of, is_scored, score_classifier, score_probe, teacher_of
from benchmarks.small_teacher import write_teacher
from medhiera.errors import run_script
from medhiera.experiments.arms import Arm
from medhiera.experiments.runner import ExperimentRunner, leave_on_signals, pin_settings
from medhiera.layout import LOG_FILE
from medhiera.shipped_files import PACKAGE

logger = logging.getLogger(__name__)


def run_arm(runner: ExperimentRunner, arm: Arm, seed: int) -> None:
    """Run or resume one arm, and note its CPU seconds, also where it is interrupted."""
    logger.info("%s, seed %d", arm.name, seed)
    wall, before = time.time(), resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        was_run = runner.run(arm, seed)
    except BaseException:
        was_run = True
        raise
    finally:
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        if used > 1:
            note_hours(runner.output / HOURS, arm.name, seed, used, time.time() - wall)
    logger.info("        %s", f"{used:.0f} CPU seconds" if was_run else "finished before, skipped")


def pretrain(lab: Laboratory, work: Work) -> None:
    """A stage 1 and, on its frozen encoder, the probe."""
    each = work.pretraining
    assert each is not None, "the work is a pre-training"
    arm = pretraining_arm(each, lab.budget, lab.teacher)
    run_arm(lab.runner(lab.cocktail if each.is_cocktail else lab.task), arm, 0)
    target = lab.scores(f"probe-{each.name}", 0)
    if not is_scored(target):
        score_probe(encoder_of(lab.folder(arm.name, 0)), lab.open_task(), target)


def contest(lab: Laboratory, work: Work) -> None:
    """A contestant with one share of the labels: the sweep, the other seeds, the scores."""
    contestant, share = work.contestant, work.share
    assert contestant is not None and share is not None, "the work is a contestant's"
    runner = lab.runner(lab.task, contestant.start)
    while (rate := next_rate(lab.reached(contestant, share), lab.budget.rates)) is not None:
        run_arm(runner, classifier_arm(contestant, share, rate), SWEEP_SEED)
    arm = lab.chosen(contestant, share)
    assert arm is not None, "the sweep is at its end"
    for seed in range(share.seeds):
        run_arm(runner, arm, seed)
        if not is_scored(target := lab.scores(arm.name, seed)):
            folder = lab.folder(arm.name, seed)
            score_classifier(folder, lab.open_task(), share.fraction, seed, target)


def run_plan(lab: Laboratory, cap_hours: float, only: Sequence[str] | None = None) -> None:
    """Everything that is not done, in order, as long as the cap allows.

    Args:
        lab: where it lies.
        cap_hours: CPU hours of all runs together.
        only: names of the pre-trainings and contestants that are run; None for all.
    """
    for work in ordered(lab.budget):
        if only is not None and short_name(work) not in only:
            continue
        if is_done(lab, work):
            logger.info("done before: %s", name_of(work))
            continue
        if (used := hours_used(lab.output)) >= cap_hours:
            logger.info("%.1f of %.1f CPU hours are used: nothing more is begun", used, cap_hours)
            return
        (pretrain if work.pretraining is not None else contest)(lab, work)
        logger.info("done: %s (%.2f CPU hours so far)", name_of(work), hours_used(lab.output))
    target = lab.scores("probe-teacher", 0)
    if not is_scored(target):
        score_probe(teacher_of(lab.teacher, IMAGE_SIZE), lab.open_task(), target)


def open_laboratory(options: argparse.Namespace) -> Laboratory:
    """Data, teacher, and the settings that all runs of a folder share.

    Raises:
        UserError: the folder holds runs of another budget.
    """
    budget = SMOKE if options.smoke else FULL
    output = options.output_dir.resolve()
    output.mkdir(parents=True, exist_ok=True)
    task, cocktail = prepare(options.shared.resolve(), output / "data", 8 if options.smoke else None)
    teacher = options.teacher or str(write_teacher(output / "teacher"))
    settings = json.loads(json.dumps(asdict(budget)))
    has_runs = any(output.glob(f"*/seed*/{LOG_FILE}"))
    pin_settings(output / "budget.json", settings, has_runs)
    return Laboratory(output, task, cocktail, teacher, budget)


def read_options(argv: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--shared", required=True, type=Path, help="the folder of the five sets")
    parser.add_argument("--output_dir", required=True, type=Path)
    parser.add_argument("--teacher", help="a timm folder (default: the ImageNet teacher, from its package)")
    parser.add_argument("--cap_hours", type=float, default=12.0, help="CPU hours of all runs together")
    parser.add_argument(
        "--only", nargs="+", choices=(*PRETRAININGS, *(each.name for each in CONTESTANTS if not each.start)),
        metavar="NAME", help="run these pre-trainings and what starts from them, random or resnet18 alone",
    )  # fmt: skip
    parser.add_argument("--smoke", action="store_true", help="a few steps of everything on a few images")
    parser.add_argument("--plan", action="store_true", help="say what is done and what is not, and end")
    parser.add_argument("--report", action="store_true", help="write the tables of what is done, and end")
    return parser.parse_args(argv)


def main(argv: list[str]) -> None:
    """Prepare, run what is left, report."""
    options = read_options(argv)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logger.setLevel(logging.INFO)
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(PACKAGE.parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    )
    lab = open_laboratory(options)
    if options.plan:
        for work in ordered(lab.budget):
            logger.info("%s: %s", "done" if is_done(lab, work) else "to do", name_of(work))
        logger.info("%.2f CPU hours used", hours_used(lab.output))
        return
    if not options.report:
        run_plan(lab, options.cap_hours, options.only)
    logger.info("%s", report(lab, hours_used(lab.output)))


if __name__ == "__main__":
    leave_on_signals()
    run_script(main, "finished runs stay: the same command continues")
