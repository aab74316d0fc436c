"""Stage 2: fine-tune Hiera on ChestX-ray14's findings, from a stage-1 folder, a Hub id or random weights.

On a GPU, and on a CPU:

    accelerate launch train_cls.py configs/cls_paper.yaml --data_dir DATA --output_dir runs/stage2 \
        --model_name_or_path runs/stage1
    python train_cls.py configs/cls_smoke.yaml --data_dir DATA --output_dir runs/stage2 --use_cpu true
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import EvalPrediction, set_seed

from medhiera.config.arguments import ClassifierOptions, images_per_step
from medhiera.config.parser import read_recipe
from medhiera.data.augmentation import choose_augmentation, random_crop
from medhiera.data.cocktail import open_cocktail
from medhiera.data.dataset import Collator, RadiographTable
from medhiera.data.selection import choose_rows, default_sources, warn_of_small_images
from medhiera.errors import RecipeError, run_script
from medhiera.evaluation import report as evaluation
from medhiera.evaluation.localization import play
from medhiera.evaluation.metrics import RARE, MultilabelRanking
from medhiera.evaluation.predictions import Predictions
from medhiera.evaluation.tables import mean_as_text
from medhiera.hub.lineage import RANDOM, lineage_of
from medhiera.hub.publish import check_can_push, publish_stage
from medhiera.hub.record import start_record, training_record
from medhiera.inference.classifier import Classifier, chances_of
from medhiera.run import choose_preprocessing, start_logging, write_stage
from medhiera.training import figures
from medhiera.training.callbacks import Pictures, ProgressLines, TrainingLog
from medhiera.training.checkpoints import last_checkpoint
from medhiera.training.losses import choose_loss
from medhiera.training.model import check_source, set_prior_bias, start_model
from medhiera.training.trainer import MedHieraTrainer
from modeling_hiera_mae import HieraMAEForImageClassification

logger = logging.getLogger("train_cls")


def main(argv: list[str]) -> None:
    """Parse, load, train, evaluate, draw, write the card, push."""
    recipe = read_recipe(ClassifierOptions, argv)
    data, training, stage = recipe.data, recipe.training, recipe.stage
    assert isinstance(stage, ClassifierOptions)
    start_logging(training)
    set_seed(training.seed)
    output = Path(training.output_dir)
    resume = last_checkpoint(training)
    if recipe.hub_id:
        check_can_push(recipe.hub_id, stage=2, token=training.hub_token)

    check_source(recipe.model, HieraMAEForImageClassification)
    cocktail = open_cocktail(data, training)
    preprocessing = choose_preprocessing(
        recipe.model.model_name_or_path, data.image_size, data.resize_size, cocktail.mean, cocktail.std
    )
    sources = data.sources or default_sources(cocktail.split("train"))
    train_rows = choose_rows(cocktail.split("train"), sources, data.max_train_images, training.seed)
    eval_rows = choose_rows(cocktail.split("validation"), sources, data.max_eval_images, training.seed)
    test_rows = choose_rows(cocktail.split("test"), sources, None, training.seed)

    warn_of_small_images(train_rows, preprocessing.resize_size)
    refuse_one_sided(np.array(eval_rows["labels"]))

    model, new_weights = start_model(
        HieraMAEForImageClassification,
        recipe.model,
        image_size=[data.image_size] * 2,
        id2label=dict(enumerate(cocktail.names)),
        label2id={name: index for index, name in enumerate(cocktail.names)},
        problem_type="multi_label_classification",
        drop_path_rate=recipe.optimization.drop_path_rate,
        classifier_dropout=stage.classifier_dropout,
    )
    source = recipe.model.model_name_or_path
    lineage = (lineage_of(source) if source else RANDOM) | {"new_weights": new_weights}
    if stage.prior_bias and (new_weights == "all" or "classifier.bias" in new_weights):
        set_prior_bias(model.classifier, torch.tensor(train_rows["labels"]))
    crop_scale = recipe.augmentation.random_crop_scale
    auroc = MultilabelRanking(keep_in_memory=True)

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        result = auroc.compute(
            predictions=scores_of(prediction.predictions, stage.legacy_head),
            references=prediction.label_ids,
            finding_names=cocktail.names,
        )
        per_finding = {
            f"auroc_{name}": entry["auroc"]
            for name, entry in result["findings"].items()
            if entry["auroc"] is not None
        }
        return {"mean_auroc": result["mean_auroc"], "findings_in_mean": len(per_finding)} | per_finding

    used = {"trained_on": train_rows, "validated_on": eval_rows, "tested_on": test_rows}
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
            augment=choose_augmentation(recipe.augmentation, stage.rotation_degrees),
            with_labels=True,
        ),
        eval_dataset=RadiographTable(eval_rows, preprocessing, with_labels=True),
        data_collator=Collator(with_ids=True, mixup_alpha=stage.mixup_alpha, seed=training.seed),
        compute_loss_func=choose_loss(stage),
        compute_metrics=compute_metrics,
        callbacks=[
            TrainingLog(output / "training_log.csv"),
            ProgressLines(images_per_step(training)),
            Pictures(output, "binary cross-entropy"),
        ],
    )
    result = trainer.train(resume_from_checkpoint=resume)
    trainer.leave_autocast()
    chances = {
        name: scores_of(
            trainer.predict(RadiographTable(rows, preprocessing, with_labels=True)).predictions,
            stage.legacy_head,
        )
        for name, rows in (("validation", eval_rows), ("test", test_rows))
    }
    weights = trainer.whole_weights()
    if not trainer.is_world_process_zero():
        return

    test = Predictions.of(test_rows, chances["test"])
    validation = Predictions.of(eval_rows, chances["validation"])
    scored = evaluation.report(cocktail.names, test, validation, stage.bootstrap_resamples, training.seed)
    if trainer.is_fsdp_enabled:  # one rank alone cannot run a sharded model
        scored["pointing_game"], shown = {"reason": "sharded training; see evaluate_cls.py", "pairs": 0}, []
    else:
        scored["pointing_game"], shown = play(
            Classifier(trainer.model.eval(), preprocessing, cocktail.names), test_rows,
            training.per_device_eval_batch_size, stage.bootstrap_resamples, training.seed,
        )  # fmt: skip
    pictures = output / "figures"
    history = trainer.state.log_history
    figures.training_curves(history, pictures / "loss.png", loss_name="binary cross-entropy")
    evaluation.draw(scored, cocktail.names, test, shown, pictures, cocktail.caption("Test split"))
    record["training"] = training_record(trainer, result)
    record["evaluation"] = {"split": "test"} | scored
    write_stage(output, trainer.model, preprocessing, record, weights)
    logger.info("test mean AUROC %s", mean_as_text(scored))
    if rare := [name for name in scored["findings_in_mean"] if scored["findings"][name]["is_rare"]]:
        logger.warning(
            "fewer than %d positive or negative test images of %s: do not trust this mean",
            RARE,
            ", ".join(rare),
        )
    logger.info("stage 2 lies in %s", output)
    if recipe.hub_id:
        is_private = bool(training.hub_private_repo)
        address = publish_stage(output, recipe.hub_id, private=is_private, stage=2, token=training.hub_token)
        logger.info("published at %s", address)


def scores_of(logits: NDArray[np.floating[Any]], legacy_head: bool) -> NDArray[np.float64]:
    """What images are ranked by, see classifier.chances_of."""
    return np.asarray(chances_of(torch.from_numpy(np.asarray(logits)), legacy_head))


def refuse_one_sided(labels: NDArray[np.floating[Any]]) -> None:
    """The best checkpoint is chosen by validation AUROC: one finding at least needs both values there."""
    if not ((labels == 1).any(axis=0) & (labels == 0).any(axis=0)).any():
        raise RecipeError(
            f"no finding has both present and absent images among the {len(labels)} of the validation split, "
            "so no checkpoint can be chosen by AUROC; hold out more images"
        )


if __name__ == "__main__":
    run_script(main)
