"""The pictures of a stage's folder: what each shows, which of them a record's card shows, and their removal.

Below model_card.py and published_files.py, which show and send the same ones; a new run of train_mae.py,
train_cls.py or train_report.py removes what an earlier one has left. Pictures of other names are their
owner's: they are shown as they are and never removed.
"""

from pathlib import Path

from medhiera.hub.record import AnyRecord, ClassificationRecord, PretrainingRecord, TrainedRecord
from medhiera.hub.widget_examples import EXAMPLES
from medhiera.layout import EXAMPLES_FOLDER, FIGURES_FOLDER
from medhiera.output import write_error

CAPTIONS = {
    "masks": "Training images: the region that masks follow, the model's input, what the mask leaves of it",
    "reconstructions": "Original, masked and reconstructed validation images",
    "loss": "Loss and learning rate over the steps",
    "roc": "ROC curve of each finding on the {split} split",
    "auroc": "AUROC of each finding with its 95 % interval, on the {split} split",
    "reliability": "Share of images with the finding against the probability given, on the {split} split",
    "subgroups": "Mean AUROC by sex, age and view on the {split} split",
    "label_efficiency": "Linear probe: mean AUROC over the share of the labels it learned from",
    "few_shots": "Linear probe: mean AUROC over how many patients with each finding it learned from",
    "heat_maps": "Images of the {split} split with a finding's box and the classifier's heat map",
}
"""Every figure that this project draws into a stage's folder."""

SCORE_FIGURES = ("roc", "auroc", "reliability", "subgroups", "heat_maps")
"""Of a classifier on the scored split."""

PROBE_FIGURES = ("label_efficiency", "few_shots")
"""Of probe.py, beside a stage 1's own."""


def figures_of(folder: Path, record: AnyRecord) -> list[Path]:
    """The figures in a folder that are its record's; what another run has left there is none.

    Args:
        folder: of a stage.
        record: its own.
    """
    found = sorted((folder / FIGURES_FOLDER).glob("*.png"))
    return [path for path in found if path.is_file() and _is_of(path.stem, record)]


def examples_in(folder: Path) -> list[Path]:
    """The pictures in a folder for the Hub's widget."""
    return sorted(path for path in (folder / EXAMPLES_FOLDER).glob("*.png") if path.is_file())


def _is_of(figure: str, record: AnyRecord) -> bool:
    """Whether a run with this record draws a figure of this name, or none of ours has the name."""
    if figure not in CAPTIONS:
        return True
    if figure == "loss":
        return isinstance(record, TrainedRecord)
    if not isinstance(record, PretrainingRecord):
        return isinstance(record, ClassificationRecord) and figure in SCORE_FIGURES
    if figure == "masks":
        return bool(record.recipe.get("mask_region", "none") != "none")
    if figure in PROBE_FIGURES:
        return record.probe is not None
    return figure == "reconstructions" and record.evaluation.target != "features"


def remove_pictures(folder: Path, resume: str | None) -> None:
    """Remove what an earlier run drew into a folder, before another one begins there.

    Args:
        folder: where the run writes.
        resume: the checkpoint that it resumes from: one of this folder keeps the run's pictures.

    Raises:
        UserError: they cannot be removed.
    """
    if resume is not None and Path(resume).parent.resolve() == folder.resolve():
        return
    figures = folder / FIGURES_FOLDER
    drawn = [figures / f"{name}.png" for name in CAPTIONS]
    drawn += (figures / "steps").glob("reconstructions-*.png")
    drawn += [folder / EXAMPLES_FOLDER / f"{name}.png" for name in EXAMPLES]
    try:
        for path in drawn:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise write_error("output_dir", folder, error) from error
