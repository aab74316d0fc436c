"""Renders a stage's model card from its metrics.json alone; it computes no number.

Last arrow before the Hub. The committed examples are rendered anew by

    python -m medhiera.hub.model_card
    python -m medhiera.hub.model_card runs/stage2
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCardData

from dataset_scripts.chestxray14 import OFFICIAL_TEST_IMAGES
from medhiera.evaluation.predictions import FEWEST_PATIENTS
from medhiera.formatting import duration, interval_text

TEMPLATES = Path(__file__).resolve().parents[2] / "model_cards"

NIH = "ChestX-ray14"

CAPTIONS = {
    "reconstructions": "Original, masked and reconstructed validation images",
    "loss": "Loss and learning rate over the steps",
    "roc": "ROC curve of each finding on the test split",
    "auroc": "AUROC of each finding with its 95 % interval",
    "reliability": "Share of images with the finding against the probability given, on the test split",
    "subgroups": "Mean AUROC by sex, age and view on the test split",
    "heat_maps": "Test images with a finding's box and the classifier's heat map",
}

DATASETS = {
    "ChestX-ray14": "chestxray14",
    "COVID-19 Radiography": "covid-19-radiography",
    "COVIDx CXR-3": "covidx-cxr-3",
    "BraTS 2020": "brats-2020",
}
"""Source to the name in the card's metadata; the Hub wants names without spaces."""

NAMES = {0: "Hiera MAE, pre-trained on ImageNet", 1: "Hiera MAE, pre-trained on medical images"}


def render_card(metrics: Mapping[str, Any], figures: Sequence[str], examples: Sequence[str] = ()) -> str:
    """The README.md of a stage's folder: YAML metadata, then Markdown.

    Args:
        metrics: the folder's metrics.json.
        figures: paths of the pictures, relative to the folder.
        examples: paths of pictures for the Hub's widget; the file's name is its title.

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
        "interval": interval_text,
        "duration": duration,
        "number": lambda value: "–" if value is None else f"{value:.3f}",
        "caption": lambda figure: CAPTIONS.get(PurePosixPath(figure).stem, PurePosixPath(figure).stem),
    }
    is_nih = bool(metrics["stage"]) and NIH in metrics["data"]["trained_on"]
    own = "Hiera, ChestX-ray14 findings" if is_nih else "Hiera, findings of one's own"
    name = NAMES.get(metrics["stage"], own)
    title = name + _suffix(metrics)
    template = "stage0.md.j2" if metrics["stage"] == 0 else "stage.md.j2"
    body = environment.get_template(template).render(
        metrics=metrics,
        figures=figures,
        title=title,
        is_nih=is_nih,
        sources=_real_sources(metrics),
        few=FEWEST_PATIENTS,
        has_starred=metrics["stage"] == 2
        and any(
            entry["has_few_cases"] and entry["auroc"] is not None
            for entry in metrics["evaluation"]["findings"].values()
        ),
        leakage=_leakage(metrics["data"]["leakage"]) if metrics["stage"] else None,
        leakage_before=_leakage_before(metrics["lineage"]),
        licence=_licence(metrics["lineage"]),
    )
    return f"---\n{_metadata(metrics, title, examples).to_yaml()}\n---\n\n{body}"


def _suffix(metrics: Mapping[str, Any]) -> str:
    """What a title says of a model that no one should take for a trained one."""
    if metrics["kind"] == "smoke":
        return " (smoke run)"
    return " (on phantoms)" if metrics["stage"] and metrics["data"]["is_phantom"] else ""


def _real_sources(metrics: Mapping[str, Any]) -> list[str]:
    """Whose real images the weights have seen, in this stage and before it."""
    if metrics["stage"] == 0:
        return []
    own = [] if metrics["data"]["is_phantom"] else metrics["data"]["trained_on"]
    return list(dict.fromkeys([*own, *metrics["lineage"].get("trained_before", [])]))


def _metadata(metrics: Mapping[str, Any], name: str, examples: Sequence[str]) -> ModelCardData:
    """The block the Hub reads: pipeline tag, lineage, licence, results, widget."""
    is_classifier = metrics["stage"] == 2
    trained_on = metrics["data"]["trained_on"] if metrics["stage"] else {}
    tags = ["hiera", "masked-autoencoder"]
    tags += ["medical", "radiology"] if metrics["stage"] else []
    tags += ["chest-x-ray"] if NIH in trained_on else []
    if metrics["stage"] == 0:
        datasets: list[str] | None = ["imagenet-1k"]
    else:  # phantoms are synthetic, made by the project itself
        datasets = [DATASETS[source] for source in _real_sources(metrics) if source in DATASETS] or None
    results = _results(metrics) if is_classifier else []
    widget = [{"src": path, "example_title": PurePosixPath(path).stem.replace("_", " ")} for path in examples]
    extra: dict[str, Any] = {"widget": widget} if widget else {}
    return ModelCardData(
        library_name="transformers",
        pipeline_tag="image-classification" if is_classifier else "image-feature-extraction",
        license=metrics["lineage"]["license"] or "other",
        base_model=metrics["lineage"]["base_model"],
        datasets=datasets,
        metrics=["roc_auc", "average_precision"] if is_classifier else None,
        tags=tags + (["smoke-run"] if metrics["kind"] == "smoke" else []),
        model_name=name if results else None,
        eval_results=results or None,
        **extra,
    )


def _results(metrics: Mapping[str, Any]) -> list[EvalResult]:
    """The model-index: what this run measured, verified by nobody else."""
    evaluation = metrics["evaluation"]
    if metrics["data"]["is_phantom"]:
        data, kind = "Phantom chest radiographs", "phantom"
    elif NIH in metrics["data"]["tested_on"]:
        data, kind = "NIH ChestX-ray14", "chestxray14"
        if evaluation["images"] != OFFICIAL_TEST_IMAGES:
            data += f", {evaluation['images']:,} images, not the official test list"
    else:
        data, kind = "images of one's own", "image-folder"
    found = [
        ("roc_auc", "mean AUROC", evaluation["mean_auroc"]),
        ("roc_auc", "mean AUROC of the diseases", evaluation["diseases"]["mean_auroc"]),
        ("average_precision", "mean average precision", evaluation["mean_average_precision"]),
    ]
    return [
        EvalResult(
            task_type="image-classification",
            dataset_type=kind,
            dataset_name=data,
            dataset_split="test",
            metric_type=metric,
            metric_name=title,
            metric_value=round(value, 4),
            verified=False,
        )
        for metric, title, value in found
        if value is not None
    ]


def _counts(images: Mapping[str, int]) -> str:
    return ", ".join(f"{source} {count:,}" for source, count in images.items()) + " images"


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


def _leakage_before(lineage: Mapping[str, Any]) -> list[str]:
    """The same of each stage that the weights went through before this one; records of old say nothing."""
    before = lineage.get("leakage_before", [])
    if before is None:
        return ["Leakage before this stage: not known; nothing is recorded of what its first weights saw."]
    return [
        f"Leakage in stage {record['stage']}, which it started from: {_leakage(record)}" for record in before
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the README.md of stage folders from the metrics.json, figures/ and examples/ they hold."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folders", nargs="*", type=Path, help="stage folders (default: model_cards/examples/*)"
    )
    options = parser.parse_args(arguments)
    rendered = sorted(path.parent for path in (TEMPLATES / "examples").glob("*/metrics.json"))
    for folder in options.folders or rendered:
        (folder / "README.md").write_text(card_of(folder), encoding="utf-8")


def card_of(folder: Path) -> str:
    """The card of a folder as it stands: its metrics.json, figures/*.png and examples/*.png."""
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    figures, examples = (
        sorted(path.relative_to(folder).as_posix() for path in (folder / place).glob("*.png"))
        for place in ("figures", "examples")
    )
    return render_card(metrics, figures, examples)


if __name__ == "__main__":
    main()
