"""How a training run begins and ends, the same for every stage; a script says what lies between.

`begin_run` reads the config, finds the checkpoint to resume from, asks the Hub, opens the data. `Run` hands
out rows, the model to start from and the Trainer; `Run.finish` writes the stage's folder and publishes it.
Above every room.
"""

import logging
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import pandas as pd
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel, TrainerCallback, TrainingArguments, set_seed
from transformers.utils.logging import disable_progress_bar

from medhiera.config.arguments import Config, images_per_step
from medhiera.config.parser import parse_config
from medhiera.config.size_defaults import fill_in
from medhiera.data.cocktail import (
    BuiltDataset,
    figure_mark,
    lies_in_data,
    missing_validation,
    open_cocktail,
)
from medhiera.data.columns import digest_splits
from medhiera.data.dataset import RadiographCollator
from medhiera.data.preprocessing import Preprocessing
from medhiera.data.selection import select_examples, warn_of_small_images
from medhiera.data.training_images import (
    count_seen,
    list_images,
    unite,
    write_training_images,
)
from medhiera.device import log_device, log_peak_memory
from medhiera.errors import UserError
from medhiera.hub.beginning import write_beginning
from medhiera.hub.data_record import DataRecord, PreprocessingRecord
from medhiera.hub.finished_stage import unfinish, write_stage
from medhiera.hub.lineage import images_before, lineage_of
from medhiera.hub.normalization import choose_preprocessing, kept_normalization
from medhiera.hub.pictures import remove_pictures
from medhiera.hub.provenance import code_commit, library_versions
from medhiera.hub.publish import check_can_push, publish_stage
from medhiera.hub.record import AnyRecord, BegunRecord, Lineage, read_record
from medhiera.hub.result_warnings import result_warnings
from medhiera.layout import LOG_FILE
from medhiera.output import other_writer, write_error
from medhiera.run_folder import hold_output
from medhiera.stages import STAGES, S, Stage
from medhiera.training.callbacks import (
    BeginningCallback,
    CSVLoggerCallback,
    ThroughputCallback,
)
from medhiera.training.checkpoints import checkpoint_faults, last_checkpoint
from medhiera.training.model import check_source, start_model
from medhiera.training.trainer import MedHieraTrainer

logger = logging.getLogger(__name__)

T = TypeVar("T", bound=MedHieraTrainer)


@dataclass
class Run(Generic[S]):
    """One training run, from its config to its folder.

    Attributes:
        stage: its row in the table.
        config: what was asked for.
        resume: the checkpoint to resume from, or None.
        data: opened.
        preprocessing: of training, evaluation and the published processor.
        channels: of the model's input.
        facts: what the record says that is known before training (`describe`).
        figure_mark: what figures say of themselves (`describe`).
        seen: the images of this stage and those before it (`list_images`).
        digests: of the images that it trains and validates on, and of what is learned of them (`describe`);
            a stage adds its own.
        teacher: the folder or Hub id of a model whose features are predicted, or None.
    """

    stage: Stage[S]
    config: Config[S]
    resume: str | None
    data: BuiltDataset
    preprocessing: Preprocessing
    lineage: Lineage = field(default_factory=Lineage.random)
    channels: int = 3
    facts: dict[str, Any] = field(default_factory=dict)
    figure_mark: str = ""
    seen: pd.DataFrame = field(default_factory=pd.DataFrame)
    digests: dict[str, str] = field(default_factory=dict)
    teacher: str | None = None

    @property
    def output(self) -> Path:
        """The stage's folder."""
        return Path(self.config.training.output_dir)

    def select(self, split: str, sources: Sequence[str] | None, at_most: int | None = None) -> Dataset:
        """Rows of a split, drawn by the run's seed where they are limited.

        Raises:
            UserError: no such split, or no such row.
        """
        return select_examples(self.data.split(split), sources, at_most, self.config.training.seed)

    def start_model(self, **config_fields: Any) -> PreTrainedModel:
        """The stage's model, from a checkpoint or random weights, and its lineage.

        Args:
            **config_fields: what this stage sets in the model's config, beside size and drop path.

        Raises:
            UserError: no checkpoint, or one of another architecture or size.
        """
        model, new_weights = start_model(
            self.stage.model_class,
            self.config.model,
            image_size=[self.config.data.image_size] * 2,
            drop_path_rate=self.config.optimization.drop_path_rate,
            **config_fields,
        )
        self.channels = model.config.num_channels
        source = self.config.model.model_name_or_path
        self.lineage = Lineage.random() if source is None else lineage_of(source, new_weights)
        return model

    def describe(self, *columns: str, **used: Dataset) -> None:
        """Collect what the record says before training, so that a fault shows now and not a night later.

        Args:
            *columns: of the rows, that are learned: a run resumes with the same.
            **used: rows by use: `trained_on`, `validated_on`, `tested_on`.

        Raises:
            UserError: see images_before and count_seen.
        """
        warn_of_small_images(
            used["trained_on"], self.preprocessing.resize_size, is_exported=self.data.is_exported
        )
        uses_held_out = {"validation": "validated_on", "test": "tested_on"}
        held_out = {split: used[use] for split, use in uses_held_out.items() if use in used}
        uses = {"train": "trained_on", "validation": "validated_on"}
        seen = {split: used[use] for split, use in uses.items() if use in used}
        lists = [list_images(rows, split) for split, rows in seen.items()]
        self.digests = digest_splits(seen, ("image_id", *columns))
        starts = (self.config.model.model_name_or_path, self.teacher)
        before = {source: images_before(source) for source in starts}
        seen_before = count_seen(before, is_allowed=self.config.data.allow_leakage, **held_out)
        lists += before.values()
        self.seen = unite(lists)
        smoke_run = self.config.optimization.smoke_run
        self.figure_mark = figure_mark(*used.values(), is_smoke_run=smoke_run)
        self.facts = {
            "kind": "smoke" if smoke_run else "full",
            "lineage": self.lineage,
            "data": DataRecord.of(self.data, used, seen_before),
            "preprocessing": PreprocessingRecord(**vars(self.preprocessing), channels=self.channels),
            "recipe": self.config.as_json(),
            "libraries": library_versions(),
            "commit": code_commit(),
        }

    def make_trainer(
        self,
        model: PreTrainedModel,
        *,
        mixup_alpha: float = 0.0,
        callbacks: Sequence[TrainerCallback] = (),
        at_beginning: Sequence[Callable[[], object]] = (),
        trainer_class: type[T] = MedHieraTrainer,
        **own: Any,
    ) -> T:
        """The Trainer with what every stage has: the log, the lines on the screen, the collator.

        Args:
            model: from `start_model`; `describe` comes before.
            mixup_alpha: see RadiographCollator.
            callbacks: beside those.
            at_beginning: what else is written when the run begins, see BeginningCallback.
            trainer_class: ours, or the one of a stage.
            **own: transformers' own: datasets, loss, metrics, another collator; or those of trainer_class.
        """
        training, arguments = self.config.training, self.stage.arguments
        seed, is_pinned = training.seed, training.dataloader_pin_memory
        begun = BegunRecord(stage=self.stage.number, **self.facts)
        own.setdefault("data_collator", RadiographCollator(True, mixup_alpha, seed, pin_memory=is_pinned))
        return trainer_class(
            optimization=self.config.optimization,
            preprocessing=self.preprocessing,
            encoder_rate=getattr(self.config.stage, "encoder_rate", 1.0),
            recipe=self.config.shaping_a_step() | self.digests,
            model=model,
            args=training,
            callbacks=[
                CSVLoggerCallback(self.output / LOG_FILE, arguments.logged_metrics, self.resume),
                ThroughputCallback(images_per_step(training), arguments.unit),
                BeginningCallback(
                    partial(write_training_images, self.output, self.seen),
                    partial(remove_pictures, self.output, self.resume),
                    partial(write_beginning, begun, self.output),
                    *at_beginning,
                    before_steps=partial(unfinish, self.output),
                ),
                *callbacks,
            ],
            **own,
        )

    def finish(
        self,
        record: AnyRecord,
        model: PreTrainedModel,
        weights: dict[str, Tensor] | None = None,
        save: Callable[[Path], None] | None = None,
    ) -> None:
        """Write the finished stage, for which figures are drawn already, and publish it where asked for.

        The card is written last: it marks completion.

        Args:
            record: the whole record; the card renders it and nothing else.
            model: the best or last model, on any device.
            weights: the model's, where it holds a part of them alone (`MedHieraTrainer.gather_state_dict`).
            save: writes the model, where more than its weights belong to it.
        """
        write_stage(self.output, self.stage, record, model, self.preprocessing, weights, save)
        log_peak_memory(self.config.training.device)
        logger.info("stage %d lies in %s", self.stage.number, self.output)
        for warning in result_warnings(record):
            logger.warning("%s", warning)
        if self.config.hub_id:
            training = self.config.training
            address = publish_stage(
                self.output,
                self.config.hub_id,
                private=bool(training.hub_private_repo),
                stage=self.stage.number,
                token=training.hub_token,
            )
            logger.info("published at %s", address)


def begin_run(
    stage: Stage[S], argv: Sequence[str], check: Callable[[Config[S]], None] | None = None
) -> Run[S]:
    """Read the config, refuse what cannot work, open the data; training may begin.

    Args:
        stage: the row of the table.
        argv: the command line without the script's name.
        check: refuses what the stage alone reads beside its data, before they are built.

    Raises:
        UserError: whatever is wrong, before hours of building or training.
    """
    config = parse_run_config(stage, argv)
    training = config.training
    start_logging(training)
    if training.process_index == 0:  # the first rank stands for all
        hold_output(Path(training.output_dir))
    log_device(training.device, training.world_size)
    set_seed(training.seed)
    refuse_other_stage(stage, Path(training.output_dir or "."))
    resume = last_checkpoint(training)
    if config.hub_id:
        check_can_push(config.hub_id, stage=stage.number, task=stage.task, token=training.hub_token)
    check_source(config.model, is_mae=stage.arguments.is_mae)
    if check is not None:
        check(config)
    fill_in(config)
    if config.model.model_name_or_path:
        images_before(config.model.model_name_or_path)  # what cannot be read is refused now
        if stage.keeps_normalization:
            kept_normalization(config.model.model_name_or_path)
    data = open_cocktail(config.data, training, wants_contours=config.stage.wants_contours)
    source = config.model.model_name_or_path if stage.keeps_normalization else None
    preprocessing = choose_preprocessing(
        source, config.data.image_size, config.data.resize_size, data.mean,
        data.mean_of_stds if config.data.legacy_std else data.std,
    )  # fmt: skip
    return Run(stage, config, resume, data, preprocessing)


def parse_run_config(stage: Stage[S], argv: Sequence[str]) -> Config[S]:
    """The config of a run; what its data and its output folder rule out is refused with all other faults.

    Raises:
        UserError: see parse_config.
    """
    return parse_config(stage.arguments, argv, checks=(_data_faults, _output_faults))


def _data_faults(config: Config[S]) -> list[str]:
    is_test_scored = bool(getattr(config.stage, "score_test", False))
    return missing_validation(Path(config.data.data_dir), is_test_scored, config.data)


def _output_faults(config: Config[S]) -> list[str]:
    training, source = config.training, config.model.model_name_or_path
    output = Path(training.output_dir or ".")
    if source is not None and output.is_dir() and os.path.isdir(source) and output.samefile(source):
        return [
            f"output_dir {output} is the folder that training starts from: its weights, record and card "
            "would be overwritten; choose another --output_dir"
        ]
    if lies_in_data(output, Path(config.data.data_dir)):
        return [
            f"output_dir {output} is data_dir {config.data.data_dir}, or lies among its images: files of "
            "yours could be overwritten, and figures taken for images; choose another --output_dir"
        ]
    if training.process_index == 0 and (held := other_writer(output)):
        return [held]  # its checkpoints are none to resume from
    try:
        return checkpoint_faults(output, training.resume_from_checkpoint)
    except OSError as error:
        return [str(write_error("output_dir", output, error))]


def refuse_other_stage(stage: Stage[S], output: Path) -> None:
    """Refuse an output folder that holds another stage, even where a run resumes: its record would be lost.

    Raises:
        UserError: it holds one, or a record that cannot be read.
    """
    record = read_record(output)
    if record is not None and record.key != stage.key:
        raise UserError(
            f"{output} holds {STAGES[record.key].words}, whose weights and record {stage.words} would "
            "overwrite; choose another --output_dir"
        )


def start_logging(args: TrainingArguments) -> None:
    """Our messages on the main process only, the libraries' warnings everywhere."""
    level = logging.INFO if args.should_log else logging.WARNING
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    disable_progress_bar()  # one for each checkpoint that is read or written, gone in a moment
    scripts = (Path(stage.script).stem for stage in STAGES.values())
    for name in ("medhiera", "dataset_scripts", "modeling_hiera_mae", *scripts):
        logging.getLogger(name).setLevel(level)
    # More workers than cores is a choice of the recipe, and every loader would say it again.
    warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
