"""Stage 1: masked-autoencoder pre-training of Hiera on the cocktail; labels are not used.

On a GPU, and on a CPU:

    accelerate launch train_mae.py configs/mae_paper.yaml --data_dir DATA --output_dir runs/stage1 \
        --model_name_or_path facebook/hiera-tiny-224-mae-hf
    python train_mae.py configs/mae_smoke.yaml --data_dir DATA --output_dir runs/stage1 --use_cpu true
"""

import logging
from collections.abc import Callable
from pathlib import Path

from datasets import Dataset

from medhiera.config.stage_arguments import MAEArguments
from medhiera.data.augmentation import Augmentation
from medhiera.data.dataset import RadiographCollator, RadiographDataset
from medhiera.data.masks import MaskDrawing
from medhiera.data.selection import mix_sources, sample_across_sources
from medhiera.errors import run_script
from medhiera.evaluation.results import ReconstructionReport
from medhiera.hub.record import PretrainingRecord
from medhiera.hub.training_record import TrainingRecord
from medhiera.inference.reconstruction import reconstruct
from medhiera.layout import FIGURES_FOLDER
from medhiera.run import Run, begin_run
from medhiera.stages import PRETRAINING
from medhiera.training import figures
from medhiera.training.callbacks import FigureCallback
from medhiera.training.trainer import MedHieraTrainer

logger = logging.getLogger("train_mae")

LOSS_NAME = "masked pixel loss"


def main(argv: list[str]) -> None:
    """Parse, load, train, evaluate, draw, write the card, push."""
    run = begin_run(PRETRAINING, argv)
    config, options, training = run.config, run.config.stage, run.config.training
    held_out_split = "validation_mae" if "validation_mae" in run.data.rows else "validation"
    train_rows = run.select("train", config.data.sources, config.data.max_train_images)
    train_rows = mix_sources(train_rows, config.data.source_weights, training.seed)
    eval_rows = run.select(held_out_split, config.data.sources, config.data.max_eval_images)

    model = run.start_model(mask_ratio=options.mask_ratio)
    run.describe(trained_on=train_rows, validated_on=eval_rows)
    masks = MaskDrawing.of(options, model.config.unit_grid)
    even = MaskDrawing(masks.grid, options.eval_mask_ratio)
    fixed, unseeded = (
        RadiographDataset(eval_rows, run.preprocessing, masks=drawn, mask_ratio=options.eval_mask_ratio)
        for drawn in (even, None)
    )
    training.label_names = ["pixel_values"]  # the target of the loss is the input
    training.prediction_loss_only = True
    training.eval_on_start = run.resume is None  # the loss before training, to compare with
    trainer = run.make_trainer(
        model,
        train_dataset=RadiographDataset(
            train_rows,
            run.preprocessing,
            seed=training.seed,
            augmentation=Augmentation.of(config.augmentation),
            masks=masks,
        ),
        eval_dataset=fixed if options.fixed_eval_masks else unseeded,
    )
    draw = make_drawing(run, trainer, eval_rows, fixed)
    trainer.add_callback(FigureCallback(run.output, LOSS_NAME, draw, options.reconstruction_steps))
    if masks.region != "none" and trainer.is_world_process_zero():
        chosen = sample_across_sources(train_rows, options.reconstruction_rows)
        captions = [run.data.source_caption(train_rows[row]["source"]) for row in chosen]
        figures.draw_masks(trainer.train_dataset, chosen, captions, run.output / FIGURES_FOLDER / "masks.png")
    result = trainer.train(resume_from_checkpoint=run.resume)
    after = trainer.evaluate()["eval_loss"]
    history = trainer.state.log_history
    before = next(entry["eval_loss"] for entry in history if "eval_loss" in entry)
    logger.info("masked validation loss %.4f → %.4f", before, after)
    as_trained = None
    if masks != even:
        own = RadiographDataset(eval_rows, run.preprocessing, masks=masks, mask_ratio=masks.mask_ratio)
        as_trained = trainer.evaluate(own, metric_key_prefix="own_masks")["own_masks_loss"]
        logger.info("with masks drawn as in training %.4f", as_trained)
    weights = trainer.gather_state_dict()
    if not trainer.is_world_process_zero():
        return

    figures.training_curves(history, run.output / FIGURES_FOLDER / "loss.png", loss_name=LOSS_NAME)
    if draw is not None:
        draw(run.output / FIGURES_FOLDER / "reconstructions.png")
    record = PretrainingRecord(
        **run.facts,
        training=TrainingRecord.of(trainer, result),
        evaluation=ReconstructionReport(before, after, options.eval_mask_ratio, as_trained),
    )
    run.finish(record, model, weights)


def make_drawing(
    run: Run[MAEArguments], trainer: MedHieraTrainer, rows: Dataset, table: RadiographDataset
) -> Callable[[Path], None] | None:
    """What draws the reconstructions of a few validation images; None where the model is sharded.

    One rank draws, and a sharded model would wait for the others.
    """
    if trainer.is_fsdp_enabled:
        return None
    chosen = sample_across_sources(rows, run.config.stage.reconstruction_rows)
    pictures = RadiographCollator()(table.__getitems__(chosen))
    batch = run.preprocessing.model_inputs(pictures, trainer.model.config.num_channels)
    captions = [run.data.source_caption(rows[row]["source"]) for row in chosen]

    def draw(path: Path) -> None:
        with trainer.averaged_weights():
            pictures = reconstruct(
                trainer.model, batch["pixel_values"], run.preprocessing, batch["noise"],
                run.config.stage.eval_mask_ratio,
            )  # fmt: skip
        figures.reconstruction_rows(pictures, captions, path)

    return draw


if __name__ == "__main__":
    run_script(
        main,
        "checkpoints are kept: repeat the command with --resume_from_checkpoint true, or as it is if none is "
        "written yet",
    )
