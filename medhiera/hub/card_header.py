"""The YAML block of a stage's card, which the Hub reads: task, lineage, licence, results, recorded examples.

record.py → here → model_card.py. The Hub links what it knows, so a data set stands here by its Hub id or not
at all, and a number only where it was measured on real images after a whole run.
"""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from dataset_scripts import SOURCES, chestxray14
from dataset_scripts.chestxray14 import OFFICIAL_TEST_IMAGES
from dataset_scripts.mistyped import REPOSITORY
from medhiera.config.arguments import StageArguments
from medhiera.hub.data_record import OWN
from medhiera.hub.licences import hub_licence
from medhiera.hub.record import AnyRecord, ClassificationRecord
from medhiera.stages import Stage

NIH = chestxray14.SOURCE.name

DATASETS = {source.name: source.hub_dataset for source in SOURCES if source.hub_dataset}
"""Source to its id on the Hub, where it has one."""

SHOWN_LABELS = 5
"""Of each example, as many as transformers' pipeline gives by default."""


def card_header(
    record: AnyRecord, stage: Stage[StageArguments], name: str, examples: Sequence[str]
) -> dict[str, Any]:
    """The block the Hub reads.

    Args:
        record: of the stage.
        stage: its row.
        name: of the model, for its results.
        examples: paths of pictures for the Hub's widget; the file's name is its title.
    """
    seen = [source for source in SOURCES if source.name in record.trained_on]
    tags = [*stage.tags, *dict.fromkeys(tag for source in seen for tag in source.hub_tags)]
    # Phantoms are synthetic, made by the project itself: they are no dataset of the Hub's.
    datasets = [*stage.datasets, *(DATASETS[name] for name in record.real_sources if name in DATASETS)]
    datasets += [one for one in record.hub_datasets if REPOSITORY.fullmatch(one)]
    results = model_index(record, stage.pipeline_tag)
    licence = hub_licence(record)
    extra: dict[str, Any] = {"widget": widget(record, examples)} if examples else {}
    if record.lineage.base_model is not None:
        extra["base_model_relation"] = stage.base_model_relation
    return ModelCardData(
        library_name="transformers",
        pipeline_tag=stage.pipeline_tag,
        license=licence.license,
        license_name=licence.name,
        license_link=licence.link,
        base_model=record.lineage.base_model,
        datasets=list(dict.fromkeys(datasets)) or None,
        metrics=list(stage.metrics) or None,
        tags=tags + (["smoke-run"] if record.kind == "smoke" else []),
        model_name=name if results else None,
        eval_results=results or None,
        **extra,
    ).to_dict()


def widget(record: AnyRecord, examples: Sequence[str]) -> list[dict[str, Any]]:
    """The examples with what the model said of each when it was finished, as most models are hosted nowhere.

    Args:
        record: holds the probabilities by the picture's file name, without its suffix.
        examples: paths of the pictures.
    """
    outputs = record.examples if isinstance(record, ClassificationRecord) else {}
    entries: list[dict[str, Any]] = []
    for path in examples:
        stem = PurePosixPath(path).stem
        entry: dict[str, Any] = {"src": path, "example_title": stem.replace("_", " ")}
        if stem in outputs:
            likeliest = sorted(outputs[stem].items(), key=lambda one: -one[1])[:SHOWN_LABELS]
            entry["output"] = [{"label": label, "score": round(score, 4)} for label, score in likeliest]
        entries.append(entry)
    return entries


def model_index(record: AnyRecord, task: str) -> list[EvalResult]:
    """What a whole run measured on the test split of real images that the Hub has an id for.

    A result without its data set's id is none that the Hub or its client can read; the card's text has every
    number.
    """
    if record.kind == "smoke" or has_phantoms(record):
        return []
    if (data := tested_dataset(record)) is None:
        return []
    return [
        EvalResult(
            task_type=task,
            **data,
            metric_type=result.metric,
            metric_name=result.title,
            metric_value=round(result.value, 4),
        )
        for result in record.results
    ]


def tested_dataset(record: AnyRecord) -> dict[str, Any] | None:
    """What EvalResult is told of the data tested on; None where the Hub has no id for it."""
    tested = next((source for source in SOURCES if source.name in record.tested_on), None)
    count, own = sum(record.tested_on.values()), record.own_images
    if tested is not None and tested.hub_dataset:
        is_other = tested.name == NIH and count != OFFICIAL_TEST_IMAGES
        more = f", {count:,} images, not the official test list" if is_other else ""
        return {
            "dataset_type": tested.hub_dataset,
            "dataset_name": tested.title + more,
            "dataset_split": "test",
        }
    if tested is None or tested.name != OWN or own is None or not REPOSITORY.fullmatch(own.hub_id):
        return None
    has_test = "test" in own.splits
    return {
        "dataset_type": own.hub_id,
        "dataset_name": own.public_name + ("" if has_test else f", {count:,} images held out of it"),
        "dataset_config": own.config or None,
        "dataset_split": "test" if has_test else None,
        "dataset_revision": own.revision or None,
    }


def has_phantoms(record: AnyRecord) -> bool:
    """Whether a number on the test split is of phantoms, or of some among real images."""
    return record.is_phantom or not record.tested_on.keys().isdisjoint(record.phantom_sources)
