"""Stage 1: masked-autoencoder pre-training of Hiera on the cocktail; labels are not used.

On a GPU, and on a CPU:

    accelerate launch train_mae.py configs/mae_paper.yaml --data_dir DATA --output_dir runs/stage1 \
        --model_name_or_path facebook/hiera-tiny-224-mae-hf
    python train_mae.py configs/mae_smoke.yaml --data_dir DATA --output_dir runs/stage1 --use_cpu true
"""

import logging
import math
from pathlib import Path

from transformers import set_seed

from medhiera.config.arguments import MAEOptions, images_per_step
from medhiera.config.parser import read_recipe
from medhiera.data.augmentation import choose_augmentation, random_crop
from medhiera.data.cocktail import open_cocktail
from medhiera.data.dataset import Collator, RadiographTable
from medhiera.data.preprocessing import Preprocessing
from medhiera.data.selection import choose_rows, mix_rows, spread_over_sources, warn_of_small_images
from medhiera.errors import run_script
from medhiera.hub.lineage import RANDOM, lineage_of
from medhiera.hub.publish import check_can_push, publish_stage
from medhiera.hub.record import start_record, training_record
from medhiera.inference.reconstruction import reconstruct
from medhiera.run import start_logging, write_stage
from medhiera.training import figures
from medhiera.training.callbacks import Pictures, ProgressLines, TrainingLog
from medhiera.training.checkpoints import last_checkpoint
from medhiera.training.model import check_source, start_model
from medhiera.training.trainer import MedHieraTrainer
from modeling_hiera_mae import HieraMAEForPreTraining

logger = logging.getLogger("train_mae")


def main(argv: list[str]) -> None:
    """Parse, load, train, evaluate, draw, write the card, push."""
    recipe = read_recipe(MAEOptions, argv)
    data, training, stage = recipe.data, recipe.training, recipe.stage
    assert isinstance(stage, MAEOptions)
    start_logging(training)
    set_seed(training.seed)
    output = Path(training.output_dir)
    resume = last_checkpoint(training)
    if recipe.hub_id:
        check_can_push(recipe.hub_id, stage=1, token=training.hub_token)

    check_source(recipe.model, HieraMAEForPreTraining)
    cocktail = open_cocktail(data, training)
    preprocessing = Preprocessing(data.image_size, data.resize_size, cocktail.mean, cocktail.std)
    held_out_split = "validation_mae" if "validation_mae" in cocktail.rows else "validation"
    train_rows = choose_rows(cocktail.split("train"), data.sources, data.max_train_images, training.seed)
    train_rows = mix_rows(train_rows, data.weights(), training.seed)
    warn_of_small_images(train_rows, data.resize_size)
    eval_rows = choose_rows(cocktail.split(held_out_split), data.sources, data.max_eval_images, training.seed)

    model, new_weights = start_model(
        HieraMAEForPreTraining,
        recipe.model,
        image_size=[data.image_size] * 2,
        mask_ratio=stage.mask_ratio,
        drop_path_rate=recipe.optimization.drop_path_rate,
    )
    source = recipe.model.model_name_or_path
    lineage = (lineage_of(source) if source else RANDOM) | {"new_weights": new_weights}
    mask_units = math.prod(model.config.unit_grid)
    held_out = RadiographTable(
        eval_rows, preprocessing, mask_units=mask_units, mask_ratio=stage.eval_mask_ratio
    )
    unseeded = RadiographTable(eval_rows, preprocessing, mask_ratio=stage.eval_mask_ratio)
    crop_scale = recipe.augmentation.random_crop_scale
    training.label_names = ["pixel_values"]  # the target of the loss is the input
    training.prediction_loss_only = True
    training.eval_on_start = resume is None  # the loss before training, to compare with
    used = {"trained_on": train_rows, "validated_on": eval_rows}
    record = start_record(recipe, lineage, cocktail, used, preprocessing)
    trainer = MedHieraTrainer(
        optimization=recipe.optimization,
        preprocessing=preprocessing,
        model=model,
        args=training,
        train_dataset=RadiographTable(
            train_rows,
            preprocessing,
            seed=training.seed,
            crop=random_crop(data.image_size, crop_scale) if crop_scale else None,
            augment=choose_augmentation(recipe.augmentation),
            mask_units=mask_units,
        ),
        eval_dataset=held_out if stage.fixed_eval_masks else unseeded,
        data_collator=Collator(with_ids=True),
        callbacks=[TrainingLog(output / "training_log.csv"), ProgressLines(images_per_step(training))],
    )
    shown = spread_over_sources(eval_rows, stage.reconstruction_rows)
    batch = preprocessing.model_inputs(Collator()([held_out[row] for row in shown]))
    captions = [("phantom, " if cocktail.is_phantom else "") + eval_rows[row]["source"] for row in shown]

    def draw(path: Path) -> None:
        with trainer.averaged_weights():
            pictures = reconstruct(
                trainer.model, batch["pixel_values"], preprocessing, batch["noise"], stage.eval_mask_ratio
            )
        figures.reconstruction_rows(pictures, captions, path)

    # One rank draws; a sharded model would wait for the others.
    pictures = Pictures(
        output, "masked pixel loss", None if trainer.is_fsdp_enabled else draw, stage.reconstruction_steps
    )
    trainer.add_callback(pictures)
    result = trainer.train(resume_from_checkpoint=resume)
    after = trainer.evaluate()["eval_loss"]
    history = trainer.state.log_history
    before = next(entry["eval_loss"] for entry in history if "eval_loss" in entry)
    logger.info("masked validation loss %.4f → %.4f", before, after)
    weights = trainer.whole_weights()
    if not trainer.is_world_process_zero():
        return

    figures.training_curves(history, output / "figures" / "loss.png", loss_name="masked pixel loss")
    if not trainer.is_fsdp_enabled:
        draw(output / "figures" / "reconstructions.png")
    record["training"] = training_record(trainer, result)
    record["evaluation"] = {
        "masked_loss_before": before,
        "masked_loss": after,
        "mask_ratio": stage.eval_mask_ratio,
    }
    write_stage(output, model, preprocessing, record, weights)
    logger.info("stage 1 lies in %s", output)
    if recipe.hub_id:
        is_private = bool(training.hub_private_repo)
        address = publish_stage(output, recipe.hub_id, private=is_private, stage=1, token=training.hub_token)
        logger.info("published at %s", address)


if __name__ == "__main__":
    run_script(main)
