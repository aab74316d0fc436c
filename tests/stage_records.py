"""Whole records of stages with small numbers, for tests that write or render metrics.json."""

import json

import jsonschema
import numpy as np
import pandas as pd
import yaml

from medhiera.data.cocktail import LeakageCounts
from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.evaluation.pointing_game import LocalizationReport
from medhiera.evaluation.predictions import Predictions
from medhiera.evaluation.report import report
from medhiera.evaluation.results import ReconstructionReport
from medhiera.hub.data_record import DataRecord, PreprocessingRecord
from medhiera.hub.record import (
    ClassificationRecord,
    Geometry,
    ImagenetRecord,
    Lineage,
    PretrainingRecord,
)
from medhiera.hub.training_record import TrainingRecord
from medhiera.shipped_files import TEMPLATES

CLEAN = LeakageCounts(is_checked=True, held_out=305, compared=436, dropped=25, allowed=0)


def facts(lineage=None, trained_on=None, leakage=CLEAN, is_phantom=False, tested_on=None, **changes):
    data = DataRecord(
        images={"train": {"ChestX-ray14": 1000}},
        is_phantom=is_phantom,
        split_scheme="official",
        leakage=leakage,
        trained_on={"ChestX-ray14": 1000} if trained_on is None else trained_on,
        validated_on={"ChestX-ray14": 100},
        tested_on=tested_on or {},
    )
    return {
        "kind": "full",
        "lineage": lineage or Lineage.random(),
        "libraries": {"torch": "2.15.0"},
        "commit": "0123abc",
        "data": data,
        "preprocessing": PreprocessingRecord(image_size=224, resize_size=256, mean=0.5, std=0.25),
        "recipe": {"learning_rate": 1e-4, "sources": None},
    } | changes


def training(**changes):
    numbers = {
        "steps": 10, "epochs": 2.0, "seconds": 3725.0, "images_per_second": 12.0, "parameters": 27_900_000,
        "best_step": 5, "best_validation": 0.7,
    }  # fmt: skip
    return TrainingRecord(**(numbers | changes))


def some_report(split="test"):
    """Of random probabilities for ninety images: Edema common, no Hernia."""
    names = ["Edema", "Hernia", "No Finding"]
    return report(predictions_of(names, 0), predictions_of(names, 1), Bootstrap(20), split=split,
                  pointing_game=LocalizationReport(reason="no image has a box"))  # fmt: skip


def predictions_of(names, seed):
    generator = np.random.default_rng(seed)
    labels = (generator.random((90, len(names))) < 0.5).astype(float)
    labels[:8, 0], labels[8:, 0], labels[:, 1] = 1, 0, 0
    ids = np.arange(90).astype(str)
    rows = pd.DataFrame({"image_id": ids, "patient_id": ids, "sex": ["F", "M"] * 45})
    rows = rows.assign(age_years=np.nan, view="PA")
    scores = generator.random((90, len(names))) * 0.7 + 0.3 * labels
    return Predictions(scores, labels, names, ids.tolist(), rows)


SOME_REPORT = some_report()


def imagenet_record(**changes):
    model = Geometry(image_size=224, parameters=27_000_000, depths=[1, 2, 7, 2], embed_dim=96)
    return ImagenetRecord(
        kind="full",
        lineage=Lineage("facebook/hiera", "cc-by-nc-4.0", None, [], [], []),
        model=model,
        **changes,
    )


def pretraining_record(steps=10, evaluation=None, **changes):
    return PretrainingRecord(
        **facts(**changes),
        training=training(steps=steps, best_step=None, best_validation=None),
        evaluation=evaluation or ReconstructionReport(1.2, 0.8, 0.6),
    )


def classification_record(evaluation=SOME_REPORT, best_step=5, **changes):
    tested_on = {"ChestX-ray14": 214} if evaluation.split == "test" else {}
    return ClassificationRecord(
        **facts(**({"tested_on": tested_on} | changes)),
        training=training(best_step=best_step),
        evaluation=evaluation,
    )


def check_metadata(card: str) -> dict:
    """A card's YAML block, valid by the schema that stands beside the templates."""
    schema = json.loads((TEMPLATES / "metadata.schema.json").read_text())
    metadata = yaml.safe_load(card.split("---\n")[1])
    jsonschema.validate(metadata, schema)
    return metadata
