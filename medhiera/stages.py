"""The stages as one table: what each is trained by, loaded as, described with and published under.

A new kind of stage is one row here, its arguments in config/, its record in hub/record.py and its card's
template. Stands on config/; hub/, run.py and the scripts read it.
"""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from transformers import PreTrainedModel

from medhiera.config.arguments import StageArguments
from medhiera.config.report_arguments import ReportArguments
from medhiera.config.stage_arguments import ClassificationArguments, MAEArguments
from medhiera.layout import WRITER_FILES
from modeling_hiera_mae import HieraMAEForImageClassification, HieraMAEForPreTraining, HieraMAEModel

S = TypeVar("S", bound=StageArguments)


@dataclass(frozen=True)
class Stage(Generic[S]):
    """One row.

    Attributes:
        number: as in the paper; metrics.json names it.
        task: what tells stages of one number apart, as metrics.json has it; "" of the paper's own.
        title: of the model card; `{data}` is what it was trained on.
        note: beside the model in a Hub collection.
        script: what trains it; for stage 0, what makes a folder of a checkpoint.
        arguments: a recipe's fields that this stage alone has.
        model_class: what is trained, or the part of it that starts from an earlier stage.
        saved_as: (model_type, class) in config.json, where that is not model_class's own.
        card_template: in model_cards/.
        pipeline_tag: the Hub's task.
        tags: of the model card, beside those that the data gives.
        datasets: Hub names for the model card, beside the sources that the record names.
        metrics: of the model card.
        more_files: of a finished folder, beside layout.STAGE_FILES; they are published where they are there.
        ships_code: this project's classes go up with it, for `trust_remote_code`.
        has_figures: a finished folder holds some.
        keeps_normalization: starts with the pixel mean and deviation of the stage it starts from, not the
            data's.
        has_widget_examples: phantoms for the Hub's widget stand beside it where it is trained on chests.
        base_model_relation: the Hub's word for what was done to the base model. Weights that only got other
            names were converted, not trained: the Hub has conversions under "quantized".
    """

    number: int
    title: str
    note: str
    script: str
    arguments: type[S]
    model_class: type[PreTrainedModel]
    card_template: str
    pipeline_tag: str
    task: str = ""
    saved_as: tuple[str, str] | None = None
    more_files: tuple[str, ...] = ()
    tags: tuple[str, ...] = ("hiera", "masked-autoencoder", "medical", "radiology")
    datasets: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    ships_code: bool = True
    has_figures: bool = True
    keeps_normalization: bool = False
    has_widget_examples: bool = False
    base_model_relation: str = "finetune"

    @property
    def key(self) -> tuple[int, str]:
        """In STAGES."""
        return self.number, self.task

    @property
    def words(self) -> str:
        """The stage in a sentence: "stage 2 (reports)"."""
        return f"stage {self.number}" + (f" ({self.task})" if self.task else "")

    @property
    def model_type(self) -> str:
        """As config.json has it."""
        return "hiera" if self.saved_as is None else self.saved_as[0]

    @property
    def architecture(self) -> str:
        """How the class's name ends, ours and stock transformers' alike: "ForPreTraining"."""
        return (
            "For" + self.model_class.__name__.split("For", 1)[1]
            if self.saved_as is None
            else self.saved_as[1]
        )


IMAGENET = Stage(
    number=0,
    title="Hiera MAE, pre-trained on ImageNet",
    note="Stage 0: masked autoencoder on ImageNet.",
    script="modeling_hiera_mae/convert.py",
    arguments=StageArguments,
    model_class=HieraMAEForPreTraining,
    card_template="imagenet.md.j2",
    pipeline_tag="image-feature-extraction",
    tags=("hiera", "masked-autoencoder"),
    datasets=("ILSVRC/imagenet-1k",),
    base_model_relation="quantized",
    has_figures=False,
)
PRETRAINING = Stage(
    number=1,
    title="Hiera MAE, pre-trained on medical images",
    note="Stage 1: masked autoencoder on medical images.",
    script="train_mae.py",
    arguments=MAEArguments,
    model_class=HieraMAEForPreTraining,
    card_template="pretraining.md.j2",
    pipeline_tag="image-feature-extraction",
)
CLASSIFICATION = Stage(
    number=2,
    title="Hiera, findings of {data}",
    note="Stage 2: classifier of findings.",
    script="train_cls.py",
    arguments=ClassificationArguments,
    model_class=HieraMAEForImageClassification,
    card_template="classification.md.j2",
    pipeline_tag="image-classification",
    metrics=("roc_auc", "average_precision"),
    keeps_normalization=True,
    has_widget_examples=True,
)
REPORTS = Stage(
    number=2,
    task="reports",
    title="Hiera, reports of {data}",
    note="Stage 2: writes reports.",
    script="train_report.py",
    arguments=ReportArguments,
    model_class=HieraMAEModel,
    saved_as=("vision-encoder-decoder", "VisionEncoderDecoderModel"),
    more_files=WRITER_FILES,
    card_template="reports.md.j2",
    pipeline_tag="image-text-to-text",
    tags=("hiera", "medical", "radiology", "report-generation"),
    metrics=("bleu", "rouge"),
    ships_code=False,
    keeps_normalization=True,
)
_ROWS: tuple[Stage[Any], ...] = (IMAGENET, PRETRAINING, CLASSIFICATION, REPORTS)
STAGES = {stage.key: stage for stage in _ROWS}
