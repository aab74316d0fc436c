"""metrics.json as dataclasses: the one place that writes and reads a stage's record.

A stage's folder holds the record of how it was made and what it reached; the card renders it, later stages
inherit from it, experiments compare it. A key of the file is an attribute here, so mypy knows it; pydantic
checks what is read.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import ConfigDict, Discriminator, Tag, TypeAdapter, ValidationError

from dataset_scripts.build.origin import DatasetOrigin
from medhiera.data.build_reports import LeakageCounts
from medhiera.errors import UserError
from medhiera.evaluation.report_results import ReportEvaluation
from medhiera.evaluation.results import ClassificationReport, ReconstructionReport
from medhiera.hub.data_record import STRICT, DataRecord, PreprocessingRecord
from medhiera.hub.probe_record import ProbeRecord
from medhiera.hub.provenance import code_commit, library_versions
from medhiera.hub.record_ranges import out_of_range
from medhiera.hub.teachers import TeacherRecord
from medhiera.hub.training_record import TrainingRecord
from medhiera.layout import METRICS_FILE
from modeling_hiera_mae.weight_files import check_finite, read_json_value

_COMMON = {"stage", "kind", "lineage", "libraries", "commit"}
"""Keys of every stage's record; a file with two of them is meant as one, however damaged."""


@dataclass
class StageLeakage(LeakageCounts):
    """What the leakage guard of an earlier stage counted."""

    stage: int = 1


@dataclass
class Lineage:
    """Where the weights that a stage started from come from.

    Attributes:
        started_from: in words.
        license: an SPDX or Hub name; None where unknown.
        base_model: Hub id, for the card's metadata.
        new_weights: parameters that no checkpoint held, or "all".
        earlier_sources: sources whose real images earlier stages trained on.
        leakage_before: what the guard of each earlier stage counted; None where nothing is recorded of what
            the first weights had seen.
        teachers: models whose features this stage or one before it predicted.
        earlier_datasets: ids on the Hub of datasets whose real images earlier stages trained on, beside those
            of the sources.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    started_from: str
    license: str | None
    base_model: str | None
    new_weights: list[str] | Literal["all"]
    earlier_sources: list[str]
    leakage_before: list[StageLeakage] | None
    teachers: list[TeacherRecord] = field(default_factory=list)
    earlier_datasets: list[str] = field(default_factory=list)

    @classmethod
    def random(cls) -> "Lineage":
        """Of weights that come from nowhere."""
        return cls("random weights", "apache-2.0", None, "all", [], [])


@dataclass
class Geometry:
    """The model of stage 0."""

    image_size: int
    parameters: int
    depths: list[int]
    embed_dim: int


@dataclass(kw_only=True)
class StageRecord:
    """What every stage's metrics.json holds.

    Attributes:
        kind: "smoke" marks a run that only proves the software.
        lineage: where its weights come from.
        libraries: versions by name.
        commit: of this project's code; None outside of git.
        contents: a digest of each file that it is about, see contents.py; empty of earlier versions.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    stage: int
    kind: Literal["full", "smoke"]
    lineage: Lineage
    libraries: dict[str, str] = field(default_factory=lambda: library_versions())
    commit: str | None = field(default_factory=lambda: code_commit())
    contents: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[int, str]:
        """Which stage this is of, see stages.STAGES."""
        return self.stage, ""

    @property
    def is_phantom(self) -> bool:
        """Whether all its images were synthetic."""
        return False

    @property
    def phantom_sources(self) -> list[str]:
        """Of which sources its images, or some of them, were synthetic."""
        return []

    @property
    def trained_on(self) -> dict[str, int]:
        """Medical images by source."""
        return {}

    @property
    def tested_on(self) -> dict[str, int]:
        """Test images by source, where the test split was scored."""
        return {}

    @property
    def scored_split(self) -> str:
        """The split that the figures and results are of."""
        return "validation"

    @property
    def real_sources(self) -> list[str]:
        """Whose real images the weights have seen, in this stage and before it."""
        own = [] if self.is_phantom else [one for one in self.trained_on if one not in self.phantom_sources]
        return list(dict.fromkeys([*own, *self.lineage.earlier_sources]))

    @property
    def own_images(self) -> DatasetOrigin | None:
        """What is known of the dataset that your own images come from."""
        return None

    @property
    def hub_datasets(self) -> list[str]:
        """Ids on the Hub of datasets that the weights have seen, beside those of the sources."""
        return self.lineage.earlier_datasets

    @property
    def leakage(self) -> LeakageCounts | None:
        """What the guard counted; None where there was nothing to guard."""
        return None

    def write(self, folder: Path) -> None:
        """Write metrics.json.

        Raises:
            ValueError: a value is NaN or infinite, which JSON has no word for.
        """
        write_json(self, folder / METRICS_FILE)


@dataclass(kw_only=True)
class ImagenetRecord(StageRecord):
    """Stage 0: weights of others in this project's layout."""

    stage: Literal[0] = 0
    model: Geometry


@dataclass(kw_only=True)
class BegunRecord(StageRecord):
    """What is known of a stage before it is trained here; what its checkpoints come from."""

    data: DataRecord
    preprocessing: PreprocessingRecord
    recipe: dict[str, Any]

    @property
    def is_phantom(self) -> bool:
        """Whether its images were synthetic."""
        return self.data.is_phantom

    @property
    def phantom_sources(self) -> list[str]:
        """Of which sources its images were synthetic."""
        return self.data.phantom_sources

    @property
    def trained_on(self) -> dict[str, int]:
        """Medical images by source."""
        return self.data.trained_on

    @property
    def tested_on(self) -> dict[str, int]:
        """Test images by source."""
        return self.data.tested_on

    @property
    def own_images(self) -> DatasetOrigin | None:
        """What is known of the dataset that your own images come from."""
        return self.data.own_images

    @property
    def hub_datasets(self) -> list[str]:
        """Ids on the Hub, of this stage's data first."""
        return list(dict.fromkeys([*self.data.hub_datasets, *self.lineage.earlier_datasets]))

    @property
    def leakage(self) -> LeakageCounts | None:
        """What the guard counted."""
        return self.data.leakage


@dataclass(kw_only=True)
class TrainedRecord(BegunRecord):
    """What the stages have in common that are trained here."""

    training: TrainingRecord


@dataclass(kw_only=True)
class PretrainingRecord(TrainedRecord):
    """Stage 1: masked autoencoder on medical images; `probe` is there once probe.py has scored it."""

    stage: Literal[1] = 1
    evaluation: ReconstructionReport
    probe: ProbeRecord | None = None


@dataclass(kw_only=True)
class ClassificationRecord(TrainedRecord):
    """Stage 2: classifier; `evaluation.split` is "validation" where the test split was not read.

    Attributes:
        examples: the model's own probabilities of the pictures beside it, by file name without suffix.
    """

    stage: Literal[2] = 2
    evaluation: ClassificationReport
    examples: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def scored_split(self) -> str:
        """The split that the figures and results are of."""
        return self.evaluation.split

    @property
    def has_legacy_scores(self) -> bool:
        """Whether its numbers are of sigmoid(softmax(logits)), which nothing but a comparison computes."""
        return bool(self.recipe.get("legacy_head"))


@dataclass(kw_only=True)
class ReportRecord(TrainedRecord):
    """Stage 2 for reports; `evaluation.split` is "validation" where the test split was not read.

    Attributes:
        decoder: the folder's own name or Hub id of the language model that it started from, or None.
        vocabulary: tokens that it can write.
        views: the most pictures of a study that it sees.
    """

    stage: Literal[2] = 2
    task: Literal["reports"] = "reports"
    decoder: str | None
    vocabulary: int
    views: int
    evaluation: ReportEvaluation

    @property
    def key(self) -> tuple[int, str]:
        """Which stage this is of, see stages.STAGES."""
        return self.stage, self.task

    @property
    def scored_split(self) -> str:
        """The split that the results are of."""
        return self.evaluation.split


R = TypeVar("R")

AnyRecord = ImagenetRecord | PretrainingRecord | ClassificationRecord | ReportRecord


def _tag(content: Any) -> str | None:
    """Which of them a file's content is meant as."""
    if not isinstance(content, dict):
        return None
    return f"{content.get('stage')} {content.get('task', '')}"


_READER: TypeAdapter[AnyRecord] = TypeAdapter(
    Annotated[
        Annotated[ImagenetRecord, Tag("0 ")]
        | Annotated[PretrainingRecord, Tag("1 ")]
        | Annotated[ClassificationRecord, Tag("2 ")]
        | Annotated[ReportRecord, Tag("2 reports")],
        Discriminator(_tag),
    ]
)


def read_record(file: Path) -> AnyRecord | None:
    """The record in a metrics.json; None where there is none, or it is of something else than a stage.

    Args:
        file: the file, or the folder that holds it.

    Raises:
        UserError: it is damaged, or a stage's that this version cannot read.
    """
    file = file / METRICS_FILE if file.is_dir() else file
    if not file.is_file():
        return None
    try:
        content = read_json_value(file)
    except (ValueError, OSError) as error:
        raise UserError(f"{file.parent}: {error}") from error
    # evaluate_cls.py and other projects write a metrics.json of their own.
    is_stage = isinstance(content, dict) and len(_COMMON & content.keys()) >= 2
    return parse_record(content, file, _READER) if is_stage else None


def parse_record(content: Any, file: Path, reader: TypeAdapter[R]) -> R:
    """A record from its JSON; the refusal (a UserError) names the first fields that are wrong."""
    try:
        check_finite(content, file.name)
    except ValueError as error:
        raise UserError(f"{file}: {error} Name another folder, or train the stage again") from error
    try:
        record = reader.validate_python(content)
    except ValidationError as error:
        faults = [f"{'.'.join(str(key) for key in one['loc'])}: {one['msg']}" for one in error.errors()[:3]]
        raise UserError(
            f"{file} is not the record of a stage that this version can read ({'; '.join(faults)}); name a "
            "folder that `medhiera train-mae`, `train-cls` or `train-report` finished, or train it again"
        ) from error
    if wrong := out_of_range(record):
        raise UserError(
            f"{file} holds {len(wrong)} numbers that no run can have reached: {'; '.join(wrong[:3])}. The "
            "file was changed or is damaged: get it again, or train the stage again"
        )
    return record


def write_json(record: Any, file: Path) -> None:
    """Write a dataclass as JSON.

    Raises:
        ValueError: a value is NaN or infinite, which JSON has no word for.
    """
    file.write_text(json.dumps(asdict(record), indent=2, allow_nan=False) + "\n", encoding="utf-8")
