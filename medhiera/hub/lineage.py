"""What the weights that a stage starts from have been through, by their own record, here or on the Hub.

Stands below run.py; the card renders it.
"""

import functools
import logging
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pandas as pd
import yaml
from huggingface_hub import (
    _CACHED_NO_EXIST,
    ModelCard,
    ModelCardData,
    hf_hub_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import EntryNotFoundError, HFValidationError, RemoteEntryNotFoundError

from dataset_scripts import SOURCES
from dataset_scripts.mistyped import REPOSITORY
from medhiera.data.training_images import read_training_images
from medhiera.errors import UserError
from medhiera.hub.beginning import read_beginning
from medhiera.hub.contents import content_of
from medhiera.hub.data_record import OWN
from medhiera.hub.record import (
    AnyRecord,
    BegunRecord,
    Lineage,
    StageLeakage,
    read_record,
)
from medhiera.hub.teachers import TeacherRecord, has_seen_test, license_with
from medhiera.layout import (
    CARD_FILE,
    CONFIG_FILE,
    METRICS_FILE,
    PUBLISHED_FILE,
    RUN_FILE,
    TRAINING_IMAGES_FILE,
    WEIGHTS_FILE,
    is_checkpoint,
    offline_reason,
    public_name,
    read_json_file,
)

logger = logging.getLogger(__name__)


def find_record(source: str | Path, *, is_kept: bool = False) -> AnyRecord | None:
    """The record of a stage's folder or Hub id; None where there is none or it is no stage's.

    A repository may have no record, or one that cannot be fetched now (offline and not in the cache, no
    connection, no access). The first is known where the Hub, or the cache from an earlier question, says so.
    Of the second there is one warning, and a refusal where its config.json shows that it was published by
    this project and what is made of it is kept; a stock model of which only config and weights are in the
    cache can so be used and trained from offline. Nothing is said of a repository whose config.json is not
    in the cache either: no model of it was opened.

    Args:
        source: a folder, or a Hub id whose record is fetched (or found in the cache).
        is_kept: what the record says goes into a stage or a file that outlasts this process.

    Raises:
        UserError: a stage's record that cannot be read; or, of what is kept, one that cannot be fetched.
    """
    if Path(source).is_dir():
        return read_record(Path(source))
    try:
        return read_record(Path(hf_hub_download(str(source), METRICS_FILE)))
    except (RemoteEntryNotFoundError, HFValidationError):
        return None  # the repository has no such file, or this names none
    except OSError as error:
        if try_to_load_from_cache(str(source), METRICS_FILE) is not _CACHED_NO_EXIST:
            _report_unknown(str(source), " ".join(str(error).split()), is_kept=is_kept)
        return None


def _report_unknown(source: str, reason: str, *, is_kept: bool) -> None:
    """Warn of a record that cannot be fetched; see find_record.

    Raises:
        UserError: the repository was published by this project, and what is made of its record is kept.
    """
    config = try_to_load_from_cache(source, CONFIG_FILE)
    if not isinstance(config, str):
        return
    content = read_json_file(Path(config))
    # publish.py writes the one, train_report.py the other.
    is_ours = "modeling_hiera_mae." in str(content.get("auto_map")) or "report_views" in content
    absent = f"{METRICS_FILE} of {source} cannot be fetched ({offline_reason(source) or reason})"
    if is_ours and is_kept:
        raise UserError(
            f"{absent}: what is made of this model would lack its thresholds, calibration, license and "
            f"earlier data for good. Run `hf download {source} {METRICS_FILE}` with a connection first"
        )
    _warn_once(
        f"{absent}: its thresholds, calibration, license and earlier data are not known"
        + ("" if is_ours else ", if it is a stage of this project")
        + f"; `hf download {source} {METRICS_FILE}` gets them"
    )


@functools.cache
def _warn_once(message: str) -> None:
    logger.warning("%s", message)


def record_before(source: str | Path) -> AnyRecord | BegunRecord | None:
    """The record of what training starts from; of a checkpoint, that of its run, however far that came.

    Args:
        source: a stage's folder, one of its checkpoints, its raw weights, or a Hub id.

    Raises:
        UserError: a record that cannot be read or fetched, a checkpoint apart from its run's folder, or the
            folder of a run that has not written its stage.
    """
    record: AnyRecord | BegunRecord | None = find_record(source, is_kept=True)
    if record is None and (Path(source) / RUN_FILE).is_file():
        raise UserError(
            f"{source} is the folder of a run that has not finished its stage: resume that "
            "(--resume_from_checkpoint true), or name one of its checkpoints"
        )
    if record is not None or not is_checkpoint(source):
        return record
    run = Path(source).resolve().parent
    record = read_record(run) or read_beginning(run)
    if record is None:
        raise UserError(
            f"{source} is a checkpoint, and no {RUN_FILE} beside it says how its images were normalized and "
            "what its weights have been through. Name it inside the folder of its run; where that was begun "
            "by an earlier version, resume it (--resume_from_checkpoint true), which writes the file, or "
            "name the finished stage"
        )
    return record


def images_before(source: str | None) -> pd.DataFrame:
    """The images that what training starts from, and the stages before it, have seen.

    Args:
        source: a folder or Hub id, or None.

    Returns:
        See read_training_images.

    Raises:
        UserError: its record says that it was trained on images, and no list says on which; or see
            record_before and read_training_images.
    """
    record = None if source is None else record_before(source)
    images = read_training_images(source)
    if record is not None and record.trained_on and images.empty:
        is_here = Path(str(source)).exists()
        step = (
            "copy the file from where the folder came from, or train the stage again"
            if is_here
            else f"run `hf download {source} {TRAINING_IMAGES_FILE}` with a connection, or ask its owner"
        )
        raise UserError(
            f"{source} was trained on {sum(record.trained_on.values()):,} images, and no "
            f"{TRAINING_IMAGES_FILE} is to be had that says on which: whether it has seen what is held out "
            f"would not be known of this stage and those after it; {step}"
        )
    return images


def lineage_of(source: str, new_weights: list[str] | Literal["all"]) -> Lineage:
    """Where the weights of a folder or Hub id come from; a local path never leaves the machine.

    Args:
        source: what training starts from.
        new_weights: parameters that it did not hold.
    """
    record = record_before(source)
    is_here = Path(source).is_dir()
    if record is None:
        is_imagenet = not is_here and source.startswith(("facebook/hiera", "timm/hiera"))
        return Lineage(
            started_from=f"the folder {Path(source).name}" if is_here else source,
            license=_licence_in_card(source) or ("cc-by-nc-4.0" if is_imagenet else None),
            base_model=None if is_here else source,
            new_weights=new_weights,
            earlier_sources=[],
            leakage_before=[] if is_imagenet else None,
        )
    before = record.lineage
    drawn = set() if record.is_phantom else set(record.phantom_sources)
    own = record.own_images.public_name if record.own_images is not None else ""
    seen = ", ".join(
        f"{'phantoms of ' if name in drawn else ''}{own if own and name == OWN else name} {count:,}"
        for name, count in record.trained_on.items()
    )
    phantoms = "synthetic phantoms in the layouts of " if record.is_phantom else ""
    history = f"from {before.started_from}" + (f"; {phantoms}{seen} images" if seen else "")
    leakage = before.leakage_before
    if record.leakage is not None and leakage is not None:
        leakage = [*leakage, StageLeakage(**vars(record.leakage), stage=record.stage)]
    published = published_name(Path(source)) if is_here else source
    place = f"{public_name(source)} of " if is_checkpoint(source) else ""
    return Lineage(
        started_from=f"{place}stage {record.stage} ({history})",
        license=before.license,
        base_model=published or before.base_model,
        new_weights=new_weights,
        earlier_sources=sorted(record.real_sources),
        leakage_before=leakage,
        teachers=before.teachers,
        earlier_datasets=record.hub_datasets,
    )


def teacher_record(
    source: str,
    model_type: str,
    fingerprint: str,
    license: str | None = None,
    datasets: list[str] | None = None,
) -> TeacherRecord:
    """What is known of a teacher: by its own record where it is a stage of ours, else by its card.

    Args:
        source: its folder or Hub id.
        model_type: transformers' name of its kind.
        fingerprint: of its weights.
        license: as the user says, where neither record nor card do.
        datasets: as the user says, in place of what the card says; a stage's record always counts.

    Raises:
        UserError: a stage's record that cannot be read or fetched.
    """
    record = record_before(source)
    if record is not None:
        before = record.lineage.teachers
        seen = [*record.real_sources, *(name for one in before for name in one.datasets or ())]
        is_known = all(one.datasets is not None for one in before)
        leakages = [record.leakage, *(record.lineage.leakage_before or ())]
        saw_test = any(one.saw_test for one in before) or has_seen_test("", datasets)
        return TeacherRecord(
            public_name(source), model_type, fingerprint, record.lineage.license or license,
            list(dict.fromkeys([*seen, *(datasets or ())])) if is_known or datasets else None,
            saw_test or any(one is not None and one.were_kept for one in leakages),
        )  # fmt: skip
    try:
        card = card_metadata(source)
        in_card, licence = card.datasets, card.license
    except UserError:
        in_card = licence = None
    known = in_card if datasets is None else datasets
    known = [known] if isinstance(known, str) else known
    return TeacherRecord(
        public_name(source), model_type, fingerprint, license or licence, known,
        has_seen_test(f"{source} {public_name(source)}", known),
    )  # fmt: skip


def refuse_leaky_teacher(teacher: TeacherRecord, *, allow_leakage: bool) -> None:
    """Refuse a teacher that has seen images to be held out.

    Raises:
        UserError: as said, and it was not allowed.
    """
    if teacher.saw_test and not allow_leakage:
        of = f" (trained on {', '.join(teacher.datasets)})" if teacher.datasets else ""
        raise UserError(
            f"teacher {teacher.name}{of} has seen ChestX-ray14's test images, as far as is known: scores on "
            "them would be too good. Take another teacher; or say what it was trained on where its card is "
            "wrong (--teacher_datasets 'ChestX-ray14 train' …); or allow_leakage: true, and the cards of "
            "this stage and of those after it say so"
        )


def with_teacher(lineage: Lineage, teacher: TeacherRecord) -> Lineage:
    """The lineage of weights that also learned from a teacher.

    Args:
        lineage: of what training starts from.
        teacher: of this stage.
    """
    ours = {source.name for source in SOURCES}
    seen = [name for name in teacher.datasets or () if name in ours]
    return replace(
        lineage,
        license=license_with(lineage.license, teacher.license),
        earlier_sources=sorted({*lineage.earlier_sources, *seen}),
        teachers=[*lineage.teachers, teacher],
    )


def card_metadata(source: str | Path) -> ModelCardData:
    """The metadata of the card of a folder or Hub id.

    Args:
        source: a folder, or a Hub id whose card is fetched (or found in the cache).

    Raises:
        UserError: there is no card to be had, or its metadata are damaged.
    """
    card = Path(source) / CARD_FILE if Path(source).is_dir() else str(source)
    try:
        data = ModelCard.load(card, ignore_metadata_errors=False).data
    except (EntryNotFoundError, OSError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"the card of {source} cannot be read ({reason}); write it anew") from error
    if not isinstance(data.license, str | None):
        raise UserError(f"the card of {source} says the license is {data.license!r}; wanted a name")
    return data


def published_name(folder: Path) -> str | None:
    """The repository that publish.py has sent this folder's weights to; None where they are others now.

    Raises:
        UserError: the note is damaged, or the weights are.
    """
    note = folder / PUBLISHED_FILE
    if not note.is_file():
        return None
    content = read_json_file(note)
    name, weights = content.get("repo_id"), content.get("weights")  # the latter not by earlier versions
    if not isinstance(name, str) or not REPOSITORY.fullmatch(name):
        raise UserError(f"{note} names no repository ({name!r}); remove it, or publish the folder again")
    is_of_others = weights is not None and weights != content_of(folder / WEIGHTS_FILE)
    return None if is_of_others else name


def _licence_in_card(source: str) -> str | None:
    """What the card of a folder or Hub id says; None where there is no card to be had."""
    try:
        return card_metadata(source).license
    except UserError:
        return None
