"""What is pre-training worth on a real task, on a machine of two cores? docs/small_result.md.

Stands beside the project; nothing imports it. The task is pneumonia on Kermany's radiographs of children,
with the official test split; the cocktail beside it holds copies of its images, which the leakage guard
removes where they show held-out ones. small_data.py writes both, small_plan.py says what is run and in which
order, small_report.py makes the tables and the figure.

    python -m benchmarks.small_result --shared ../shared --output_dir runs/small

Every run is a process of train_mae.py, train_cls.py or resnet_baseline.py. What is finished is skipped and
what was interrupted resumes from its checkpoint, so the same command continues. `--report` makes the tables
of what there is, `--plan` says what is left. CPU seconds go to hours.csv; no run is begun beyond
`--cap_hours`. At the end `mae-cocktail/seed0` and `stage2/seed0` are the folders to publish.
"""

import argparse
import json
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.small_data import prepare
from benchmarks.small_differences import COMPARED
from benchmarks.small_hours import CapReachedError, Session, cpu_seconds
from benchmarks.small_laboratory import (
    IMAGE_SIZE,
    Laboratory,
    hours_used,
    is_done,
    name_of,
    short_name,
)
from benchmarks.small_plan import (
    CARD_OPTIONS,
    CONTESTANTS,
    FULL,
    LONG,
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
from benchmarks.small_score import Embed, encoder_of, is_scored, score_classifier, score_probe, teacher_of
from benchmarks.small_teacher import write_teacher
from medhiera.errors import run_script
from medhiera.experiments.arms import Arm
from medhiera.experiments.runner import ExperimentRunner, leave_on_signals, pin_settings
from medhiera.layout import CARD_FILE, LOG_FILE
from medhiera.shipped_files import PACKAGE

logger = logging.getLogger(__name__)

PUBLISHED = "stage2"
"""The folder of the primary contestant with its card of the test split: seed 0 below it."""


def run_arm(session: Session, runner: ExperimentRunner, arm: Arm, seed: int) -> None:
    """Run or resume one arm, unless it is finished.

    Raises:
        CapReachedError: it is not, and the hours are used.
    """
    logger.info("%s, seed %d", arm.name, seed)
    if runner.record(arm.name, seed) is not None:
        logger.info("        finished before, skipped")
        return
    session.begin(arm.name, seed)
    before = cpu_seconds()
    runner.run(arm, seed)
    logger.info("        %.0f CPU seconds", cpu_seconds() - before)


def pretrain(session: Session, work: Work) -> None:
    """A stage 1 and, on its frozen encoder, the probe."""
    lab, each = session.lab, work.pretraining
    assert each is not None, "the work is a pre-training"
    arm = pretraining_arm(each, lab.budget, lab.teacher)
    run_arm(session, lab.runner(lab.cocktail if each.is_cocktail else lab.task), arm, 0)
    probe(session, each.name, lambda: encoder_of(lab.folder(arm.name, 0)))


def probe(session: Session, name: str, open_encoder: Callable[[], Embed]) -> None:
    """The linear probe on a frozen encoder, unless it is scored."""
    lab = session.lab
    if not is_scored(target := lab.scores(f"probe-{name}", 0)):
        session.begin(f"probe-{name}", 0)
        score_probe(open_encoder(), lab.open_task(), target)


def contest(session: Session, work: Work) -> None:
    """A contestant with one share of the labels: the sweep, the other seeds, the scores."""
    lab, contestant, share = session.lab, work.contestant, work.share
    assert contestant is not None and share is not None, "the work is a contestant's"
    runner = lab.runner(lab.task, contestant.start)
    while (rate := next_rate(lab.reached(contestant, share), lab.budget.rates)) is not None:
        run_arm(session, runner, classifier_arm(contestant, share, rate), SWEEP_SEED)
    arm = lab.chosen(contestant, share)
    assert arm is not None, "the sweep is at its end"
    for seed in range(share.seeds):
        run_arm(session, runner, arm, seed)
        if not is_scored(target := lab.scores(arm.name, seed)):
            session.begin(arm.name, seed)
            folder = lab.folder(arm.name, seed)
            score_classifier(folder, lab.open_task(), share.fraction, seed, target)


def score_for_card(session: Session) -> None:
    """The primary contestant's first seed as a folder to publish, its record with the test split.

    The run resumes after its last step, in a copy: the sweep reads its own record, which is of validation.
    """
    lab = session.lab
    contestant, share = COMPARED[0][0], lab.budget.shares[0]
    chosen = lab.chosen(contestant, share)
    if chosen is None or not is_done(lab, Work(contestant=contestant, share=share)):
        return
    arm = replace(chosen, name=PUBLISHED)
    runner = replace(lab.runner(lab.task, contestant.start), arguments={arm.script: CARD_OPTIONS})
    folder = runner.folder(arm.name, 0)
    if not folder.exists():
        partial = folder.with_name("partial")
        shutil.rmtree(partial, ignore_errors=True)
        # Without its card a run is not finished: the runner resumes it.
        shutil.copytree(lab.folder(chosen.name, 0), partial, ignore=shutil.ignore_patterns(CARD_FILE))
        os.replace(partial, folder)
    run_arm(session, runner, arm, 0)


def run_plan(
    lab: Laboratory,
    cap_hours: float,
    only: Sequence[str] | None = None,
    percents: Sequence[float] | None = None,
) -> None:
    """Everything that is not done, in order, as long as the cap allows.

    Args:
        lab: where it lies.
        cap_hours: CPU hours of all runs together; asked before each.
        only: names of the pre-trainings and contestants that are run; None for all.
        percents: of the labels, that contestants are run with; None for all.
    """
    try:
        with Session(lab, cap_hours) as session:
            for work in ordered(lab.budget):
                if only is not None and short_name(work) not in only:
                    continue
                if percents is not None and work.share and 100 * work.share.fraction not in percents:
                    continue
                if is_done(lab, work):
                    logger.info("done before: %s", name_of(work))
                    continue
                (pretrain if work.pretraining is not None else contest)(session, work)
                session.note()
                logger.info("done: %s (%.2f CPU hours so far)", name_of(work), hours_used(lab.output))
            if only is None or "features" in only:
                probe(session, "teacher", lambda: teacher_of(lab.teacher, IMAGE_SIZE))
            if only is None or COMPARED[0][0].name in only:
                score_for_card(session)
    except CapReachedError as reached:
        logger.info("%s: nothing more is begun", reached)


def open_laboratory(options: argparse.Namespace) -> Laboratory:
    """Data, teacher, and the settings that all runs of a folder share.

    Raises:
        UserError: the folder holds runs of another budget.
    """
    budget = LONG if options.long else SMOKE if options.smoke else FULL
    output = options.output_dir.resolve()
    output.mkdir(parents=True, exist_ok=True)
    task, cocktail = prepare(options.shared.resolve(), output / "data", 8 if options.smoke else None)
    teacher = options.teacher or str(output / "teacher")
    trains = not (options.plan or options.report)
    if trains and not options.teacher and (options.only is None or "features" in options.only):
        write_teacher(output / "teacher")
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
    parser.add_argument(
        "--labels", nargs="+", type=float, metavar="PERCENT", help="fine-tune with these shares alone"
    )
    lengths = parser.add_mutually_exclusive_group()
    lengths.add_argument("--long", action="store_true", help="seven times the fine-tuning")
    lengths.add_argument("--smoke", action="store_true", help="a few steps of everything on a few images")
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
        run_plan(lab, options.cap_hours, options.only, options.labels)
    logger.info("%s", report(lab, hours_used(lab.output)))


if __name__ == "__main__":
    leave_on_signals()
    run_script(main, "finished runs stay: the same command continues")
