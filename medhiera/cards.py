"""Renders a stage's model card from its metrics.json alone; it computes no number.

Last arrow before the Hub.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCardData

TEMPLATES = Path(__file__).resolve().parent.parent / "model_cards"

NIH = "ChestX-ray14"

CAPTIONS = {
    "reconstructions": "Original, masked and reconstructed validation images",
    "loss": "Loss and learning rate over the steps",
    "roc": "ROC curve of each finding on the test split",
    "auroc": "AUROC of each finding with its 95 % interval",
}


def render_card(metrics: Mapping[str, Any], figures: Sequence[str]) -> str:
    """The README.md of a stage's folder: YAML metadata, then Markdown.

    Args:
        metrics: the folder's metrics.json.
        figures: paths of the pictures, relative to the folder.

    Raises:
        jinja2.UndefinedError: the record lacks a field that the card shows.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # Markdown, not HTML
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "counts": _counts,
        "interval": _interval,
        "duration": _duration,
        "caption": lambda figure: CAPTIONS.get(PurePosixPath(figure).stem, PurePosixPath(figure).stem),
    }
    is_nih = NIH in metrics["data"]["trained_on"]
    if metrics["stage"] == 1:
        name = "Hiera MAE, pre-trained on medical images"
    else:
        name = "Hiera, ChestX-ray14 findings" if is_nih else "Hiera, findings of one's own"
    body = environment.get_template("stage.md.j2").render(
        metrics=metrics,
        figures=figures,
        title=f"{name} (smoke run)" if metrics["kind"] == "smoke" else name,
        is_nih=is_nih,
        rare=metrics["stage"] == 2
        and any(e["is_rare"] and e["auroc"] is not None for e in metrics["evaluation"]["findings"].values()),
        leakage=_leakage(metrics["data"]["leakage"]),
        licence=_licence(metrics["lineage"]),
    )
    return f"---\n{_metadata(metrics, name).to_yaml()}\n---\n\n{body}"


def _metadata(metrics: Mapping[str, Any], name: str) -> ModelCardData:
    """The block the Hub reads: pipeline tag, lineage, licence, results."""
    is_classifier = metrics["stage"] == 2
    tags = ["medical", "radiology", "hiera", "masked-autoencoder"]
    tags += ["chest-x-ray"] if NIH in metrics["data"]["trained_on"] else []
    results = None
    if is_classifier and metrics["evaluation"]["mean_auroc"] is not None:
        if metrics["data"]["is_phantom"]:
            data, kind = "Phantom chest radiographs", "phantom"
        elif NIH in metrics["data"]["tested_on"]:
            data, kind = "NIH ChestX-ray14", "chestxray14"
        else:
            data, kind = "images of one's own", "image-folder"
        results = [
            EvalResult(
                task_type="image-classification",
                dataset_type=kind,
                dataset_name=data,
                dataset_split="test",
                metric_type="roc_auc",
                metric_name="mean AUROC",
                metric_value=round(metrics["evaluation"]["mean_auroc"], 4),
                verified=False,
            )
        ]
    return ModelCardData(
        library_name="transformers",
        pipeline_tag="image-classification" if is_classifier else "image-feature-extraction",
        license=metrics["lineage"]["license"] or "other",
        base_model=metrics["lineage"]["base_model"],
        metrics=["roc_auc"] if is_classifier else None,
        tags=tags + (["smoke-run"] if metrics["kind"] == "smoke" else []),
        model_name=name if results else None,
        eval_results=results,
    )


def _counts(images: Mapping[str, int]) -> str:
    return ", ".join(f"{source} {count:,}" for source, count in images.items()) + " images"


def _interval(interval: Sequence[float] | None) -> str:
    return "–" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _licence(lineage: Mapping[str, Any]) -> str:
    """One sentence: weights inherit what they were trained from."""
    if lineage["license"] == "apache-2.0":
        return "Apache-2.0, as the code: the weights started at random. The images keep their own licences."
    if lineage["license"] is None:
        return f"Inherited from {lineage['started_from']}, of unknown licence: look it up first."
    return (
        f"{lineage['license']}: inherited from the weights it started from ({lineage['started_from']}). "
        "Weights derived from Meta's Hiera are for non-commercial use."
    )


def _leakage(leakage: Mapping[str, Any]) -> str:
    """What was done so that no held-out image was trained on."""
    if not leakage["is_checked"]:
        return "not checked; held-out images may stand in the training data under another name."
    if leakage["allowed"]:
        return (
            f"ALLOWED. {leakage['allowed']:,} training images show a held-out ChestX-ray14 image and were "
            "kept, as in the paper; scores on the test split are too high."
        )
    return (
        f"{leakage['compared']:,} images of other sources were compared with the {leakage['held_out']:,} "
        f"held-out ChestX-ray14 images by pixels and by name; the {leakage['dropped']:,} that show one "
        "of them were left out."
    )
