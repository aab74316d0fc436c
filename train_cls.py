r"""Stage 2: fine-tune Hiera on any labels, from a stage-1 folder, a Hub id or random weights.

On a GPU, and on a CPU:

    accelerate launch train_cls.py configs/cls_paper.yaml --data_dir DATA --output_dir runs/stage2 \
        --model_name_or_path runs/stage1
    python train_cls.py configs/cls_smoke.yaml --data_dir DATA --output_dir runs/stage2 --use_cpu true
"""

from medhiera.config.before_imports import answer_before_imports
from medhiera.config.stage_arguments import ClassificationArguments

if __name__ == "__main__":  # answered before PyTorch is imported, which takes seconds
    answer_before_imports(ClassificationArguments, __doc__)

import logging
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from transformers import PreTrainedModel

from dataset_scripts.findings import labels_line
from medhiera.data.augmentation import Augmentation
from medhiera.data.columns import read_column, read_labels
from medhiera.data.dataset import RadiographDataset
from medhiera.data.kept_findings import keep_findings
from medhiera.data.selection import choose_sources, take_label_fraction
from medhiera.errors import UserError, run_script
from medhiera.evaluation import report
from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.checkpoint_selection import (
    SELECTION_METRIC,
    ValidationScores,
    choose_findings,
    one_sided_findings,
)
from medhiera.evaluation.localization import HeatMapExample, evaluate_localization
from medhiera.evaluation.pointing_game import LocalizationReport
from medhiera.evaluation.predictions import Predictions
from medhiera.evaluation.results import ClassificationReport
from medhiera.evaluation.tables import few_cases, mean_as_text
from medhiera.hub.record import ClassificationRecord
from medhiera.hub.result_warnings import one_sided_warning
from medhiera.hub.training_record import TrainingRecord
from medhiera.inference.classifier import Classifier, score_logits
from medhiera.layout import FIGURES_FOLDER
from medhiera.run import Run, begin_run
from medhiera.run_folder import how_to_go_on
from medhiera.stages import CLASSIFICATION
from medhiera.training import figures
from medhiera.training.callbacks import FigureCallback
from medhiera.training.losses import choose_loss
from medhiera.training.model import set_prior_bias
from medhiera.training.trainer import MedHieraTrainer
from modeling_hiera_mae.exclusive_loss import MULTI_LABEL, SINGLE_LABEL

logger = logging.getLogger("train_cls")

LOSS_NAMES = {False: "binary cross-entropy", True: "cross-entropy"}
"""By whether the labels exclude each other."""


def main(argv: list[str]) -> None:
    """Parse, load, train, evaluate, draw, write the card, push."""
    run = begin_run(CLASSIFICATION, argv)
    run.data = keep_findings(run.data, run.config.stage.findings)
    config, options, names = run.config, run.config.stage, run.data.names
    logger.info("learns labels: %s", labels_line(run.data.split("train").features))
    sources = choose_sources(run.data.split("train"), config.data.sources)
    train_rows = run.select("train", sources, config.data.max_train_images)
    train_rows = take_label_fraction(train_rows, options.label_fraction, config.training.seed)
    eval_rows = run.select("validation", sources, config.data.max_eval_images)
    scored_rows = run.select("test", sources) if options.score_test else eval_rows

    is_exclusive = run.data.is_exclusive
    loss = choose_loss(options, is_exclusive)
    one_sided = one_sided_findings(read_labels(train_rows), names)
    labels = read_labels(eval_rows)
    patients = read_column(eval_rows, "patient_id").to_pylist()
    selection = choose_findings(labels, patients, names, is_exclusive, one_sided)
    check_metric(config.training.metric_for_best_model, labels, names)
    for sentence in one_sided_warning(one_sided):
        logger.warning("%s", sentence)
    model = start_model(run, train_rows)
    tested = {"tested_on": scored_rows} if options.score_test else {}
    run.describe("labels", trained_on=train_rows, validated_on=eval_rows, **tested)
    trainer: MedHieraTrainer = run.make_trainer(
        model,
        mixup_alpha=options.mixup_alpha,
        callbacks=[FigureCallback(run.output, LOSS_NAMES[is_exclusive], run.figure_mark)],
        train_dataset=RadiographDataset(
            train_rows,
            run.preprocessing,
            seed=config.training.seed,
            augmentation=Augmentation.of(
                config.augmentation, options.rotation_degrees, options.rotation_interpolation == "nearest"
            ),
            with_labels=True,
        ),
        eval_dataset=RadiographDataset(eval_rows, run.preprocessing, with_labels=True),
        compute_loss_func=loss,
        compute_metrics=ValidationScores(names, selection.findings, options.legacy_head, is_exclusive),
    )
    result = trainer.train(resume_from_checkpoint=run.resume)
    trainer.disable_autocast()
    trainer.compute_metrics = None  # from here on the report says what is reached
    validation = predict(run, trainer, eval_rows)
    scored = predict(run, trainer, scored_rows) if options.score_test else validation
    weights = trainer.gather_state_dict()
    if not trainer.is_world_process_zero():
        return

    figures.training_curves(
        trainer.state.log_history, run.output / FIGURES_FOLDER / "loss.png",
        loss_name=LOSS_NAMES[is_exclusive], mark=run.figure_mark,
    )  # fmt: skip
    record = ClassificationRecord(
        **run.facts,
        training=TrainingRecord.of(trainer, result, selection if is_selected(run) else None, one_sided),
        evaluation=evaluate(run, trainer, scored, validation if options.score_test else None, scored_rows),
    )
    run.finish(record, trainer.model, weights)


def start_model(run: Run[ClassificationArguments], train_rows: Dataset) -> PreTrainedModel:
    """The classifier that training starts from, with a new head where the checkpoint holds none."""
    options, names, is_exclusive = run.config.stage, run.data.names, run.data.is_exclusive
    model = run.start_model(
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
        problem_type=SINGLE_LABEL if is_exclusive else MULTI_LABEL,
        classifier_dropout=options.classifier_dropout,
    )
    new = run.lineage.new_weights
    if options.prior_bias and (new == "all" or "classifier.bias" in new):
        labels = torch.from_numpy(read_labels(train_rows)).float()
        set_prior_bias(model.classifier, labels, is_exclusive)
    return model


def check_metric(metric: str | None, labels: NDArray[np.floating[Any]], names: list[str]) -> None:
    """Refuse `metric_for_best_model: auroc_FINDING` where no validation gives that number.

    Args:
        metric: the recipe's.
        labels: (images, findings) of the validation split; 1, 0 or NaN.
        names: of the findings.

    Raises:
        UserError: no such finding, or its validation images are all present or all absent.
    """
    ranked = [
        name
        for name, column in zip(names, labels.T, strict=True)
        if (column == 1).any() and (column == 0).any()
    ]
    name = (metric or "").removeprefix("eval_")
    finding = name.removeprefix("auroc_")
    if name.startswith("auroc_") and finding not in ranked:
        raise UserError(
            f"metric_for_best_model is {metric}, and the validation split has no AUROC of {finding}; it has "
            f"those of {', '.join(ranked)}"
        )


def is_selected(run: Run[ClassificationArguments]) -> bool:
    """Whether the best checkpoint was kept and chosen by `selection_auroc`, not by a metric of the user's."""
    training = run.config.training
    return training.load_best_model_at_end and training.metric_for_best_model == SELECTION_METRIC


def predict(run: Run[ClassificationArguments], trainer: MedHieraTrainer, rows: Dataset) -> Predictions:
    """The model's probabilities of a split, beside what is true; every rank takes part."""
    table = RadiographDataset(rows, run.preprocessing, with_labels=True)
    scores = scores_of(
        trainer.predict(table).predictions, run.config.stage.legacy_head, run.data.is_exclusive
    )
    return Predictions.of(rows, scores, run.data.names)


def evaluate(
    run: Run[ClassificationArguments],
    trainer: MedHieraTrainer,
    scored: Predictions,
    validation: Predictions | None,
    rows: Dataset,
) -> ClassificationReport:
    """Every number of the split, and its figures.

    Args:
        run: this run.
        trainer: with the model that is kept.
        scored: the split that is reported.
        validation: where thresholds and rescaling are chosen; None where it is what is reported.
        rows: of the split that is reported.
    """
    split, names = "test" if validation else "validation", run.data.names
    bootstrap = Bootstrap(run.config.stage.bootstrap_resamples)
    game = LocalizationReport(reason="sharded training; see evaluate_cls.py")
    examples: list[HeatMapExample] = []
    if not trainer.is_fsdp_enabled:  # one rank alone cannot run a sharded model
        classifier = Classifier(trainer.model.eval(), run.preprocessing, names)
        batch_size = run.config.training.per_device_eval_batch_size
        game, examples = evaluate_localization(classifier, rows, bootstrap, batch_size)
    result = report.report(scored, validation, bootstrap, split=split, pointing_game=game)
    title = f"{split.capitalize()} split"
    report.draw(result, scored, examples, run.output / FIGURES_FOLDER, title, run.figure_mark)
    what = "AUROC" if result.exclusive is not None and result.exclusive.pair else "mean AUROC"
    logger.info("%s %s %s", split, what, mean_as_text(result))
    for sentence in few_cases(result):
        logger.warning("%s", sentence)
    return result


def scores_of(
    logits: NDArray[np.floating[Any]], legacy_head: bool, is_exclusive: bool
) -> NDArray[np.float64]:
    """What images are ranked by, see score_logits."""
    return np.asarray(score_logits(torch.from_numpy(np.asarray(logits)), legacy_head, is_exclusive))


if __name__ == "__main__":
    run_script(main, how_to_go_on)
