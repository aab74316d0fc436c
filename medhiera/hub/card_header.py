"""The YAML block of a stage's card, which the Hub reads: task, lineage, licence, results, recorded examples.

record.py → here → model_card.py. The Hub links what it knows, so a data set stands here by its Hub id or not
at all; which numbers do, model_index.py says.
"""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from huggingface_hub import ModelCardData

from dataset_scripts import SOURCES
from dataset_scripts.mistyped import REPOSITORY
from medhiera.config.arguments import StageArguments
from medhiera.hub.licences import hub_licence
from medhiera.hub.model_index import model_index
from medhiera.hub.record import AnyRecord, ClassificationRecord, TrainedRecord
from medhiera.stages import Stage

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
    extra: dict[str, Any] = {}
    if isinstance(record, TrainedRecord) and record.preprocessing.channels == 1:
        extra["inference"] = False  # the Hub's widget, a pipeline, would give the model three channels
    elif examples:
        extra["widget"] = widget(record, examples)
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
