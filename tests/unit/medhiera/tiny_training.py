"""A few noise pictures, a tiny classifier, and our Trainer on them, in this process.

MEDHIERA_TEST_SEED draws other pictures, weights and orders: what a test states must hold for all of them.
"""

import os

import numpy as np
import torch
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as PillowImage
from transformers import TrainingArguments

from medhiera.config.arguments import OptimizationArguments
from medhiera.data.dataset import RadiographCollator, RadiographDataset
from medhiera.data.preprocessing import Preprocessing
from medhiera.training.trainer import MedHieraTrainer
from modeling_hiera_mae import HieraMAEConfig, HieraMAEForImageClassification, HieraMAEForPreTraining
from modeling_hiera_mae.exclusive_loss import MULTI_LABEL

PREPROCESSING = Preprocessing(image_size=32, resize_size=36, mean=0.5, std=0.25)
FINDINGS = 3
SEED = int(os.environ.get("MEDHIERA_TEST_SEED", "0"))


def make_rows(count=16):
    generator = np.random.default_rng(SEED)
    labels = (generator.random((count, FINDINGS)) < 0.5).astype(float)
    labels[generator.random((count, FINDINGS)) < 0.4] = np.nan
    pictures = generator.integers(0, 256, (count, 40, 44), dtype=np.uint8)
    return Dataset.from_dict(
        {
            "image": [PillowImage.fromarray(picture) for picture in pictures],
            "image_id": [f"image {n}" for n in range(count)],
            "labels": labels.tolist(),
        },
        features=Features({"image": Image(), "image_id": Value("string"), "labels": List(Value("float32"))}),
    )


def tiny_config(**fields):
    return HieraMAEConfig.from_size(
        "tiny",
        **{"embed_dim": 8, "depths": [1, 1, 2, 1], "image_size": [32, 32], "num_labels": FINDINGS,
           "decoder_hidden_size": 16, "decoder_depth": 1, "decoder_num_heads": 2} | fields,
    )  # fmt: skip


def tiny_classifier(**fields):
    torch.manual_seed(SEED)
    return HieraMAEForImageClassification(tiny_config(**{"problem_type": MULTI_LABEL} | fields))


def tiny_mae(**fields):
    torch.manual_seed(SEED)
    return HieraMAEForPreTraining(tiny_config(image_size=[64, 64], **fields))


def make_trainer(folder, optimization=None, rows=None, model=None, table=None, collator=None, **arguments):
    """A Trainer on `rows`; `arguments` are TrainingArguments or, by name, the Trainer's own."""
    own = {
        name: arguments.pop(name)
        for name in ("compute_loss_func", "compute_metrics", "callbacks", "recipe", "teacher", "encoder_rate")
        if name in arguments
    }
    rows = make_rows() if rows is None else rows
    trainer_class = arguments.pop("trainer_class", MedHieraTrainer)
    preprocessing = arguments.pop("preprocessing", PREPROCESSING)
    settings = {
        "output_dir": str(folder), "per_device_train_batch_size": 8, "max_steps": 4, "use_cpu": True,
        "max_grad_norm": 0, "save_strategy": "no", "logging_steps": 1, "disable_tqdm": True,
        "learning_rate": 1e-2, "seed": 42 + SEED, "remove_unused_columns": False,
        "dataloader_pin_memory": False, "logging_nan_inf_filter": False, "report_to": [],
    } | arguments  # fmt: skip
    return trainer_class(
        optimization=optimization or OptimizationArguments(optimizer="adam", schedule="one_cycle"),
        preprocessing=preprocessing,
        model=model or tiny_classifier(),
        args=TrainingArguments(**settings),
        train_dataset=table or RadiographDataset(rows, PREPROCESSING, with_labels=True),
        eval_dataset=RadiographDataset(rows, PREPROCESSING, with_labels=True),
        data_collator=collator or RadiographCollator(with_ids=True),
        **own,
    )


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}
