"""What the paper and others report on ChestX-ray14, to stand beside a result of ours."""

from collections.abc import Iterable

from dataset_scripts.chestxray14 import OFFICIAL_TEST_IMAGES
from dataset_scripts.chestxray14 import SOURCE as NIH
from medhiera.evaluation.metrics import NO_DISEASE
from medhiera.evaluation.predictions import FEWEST_PATIENTS
from medhiera.evaluation.results import RankingReport

PAPER_AUROC = {
    "Atelectasis": 77.55, "Cardiomegaly": 85.03, "Consolidation": 77.28, "Edema": 87.24, "Effusion": 85.83,
    "Emphysema": 90.39, "Fibrosis": 81.83, "Hernia": 89.15, "Infiltration": 70.28, "Mass": 81.17,
    "No Finding": 79.14, "Nodule": 76.99, "Pleural_Thickening": 78.24, "Pneumonia": 79.86,
    "Pneumothorax": 85.24,
}  # fmt: skip
"""MedTransformer, Table 2, in percent, on the last third of the official test list."""

PAPER_SETTINGS = {
    1: {
        "optimizer": "adam, β 0.9 and 0.999",
        "weight decay": "0",
        "schedule": "one_cycle",
        "highest learning rate": "0.0001",
        "images a step": "64",
        "epochs": "80 (20 in the ablation)",
        "input": "224 px",
        "mask ratio": "0.6",
        "augmentation": "none",
        "starts from": "ImageNet MAE",
    },
    2: {
        "optimizer": "adam, β 0.9 and 0.999",
        "weight decay": "1e-08",
        "schedule": "one_cycle",
        "highest learning rate": "0.0001",
        "images a step": "64",
        "epochs": "10",
        "input": "224 px",
        "augmentation": "rotation ±30°",
        "starts from": "MAE on the full cocktail",
    },
}
"""MedTransformer by stage: Table 4 (pre-training) and Table 1 (classification)."""

PEERS = (
    ("SynthEnsemble, six models", 85.4, "d"),
    ("CXformer-B, 518 px", 85.28, "d"),
    ("X-WIN ViT-L, linear probe", 84.3, "d"),
    ("SynthEnsemble's CoAtNet", 84.2, "d"),
    ("CXformer-S, 518 px", 83.68, "d"),
    ("EVA-X-B", 83.5, "b"),
    ("EVA-X-S", 83.3, "b"),
    ("CheXWorld", 83.3, ""),
    ("Ark+", 83.1, ""),
    ("medical_mae ViT-B", 83.0, "b"),
    ("CheXFound", 82.9, ""),
    ("EVA-X-Ti", 82.4, "b"),
    ("medical_mae ViT-S", 82.3, "b"),
    ("DenseNet-121", 82.2, ""),
    ("MedTransformer (Hiera-T)", 81.86, "a"),
    ("Swin-T, 320 px", 81.84, "c"),
)
"""Mean AUROC of the 14 diseases, in percent, on the official test list unless the footnote says otherwise."""

OURS = "this model"

FOOTNOTES = {
    "a": "its own third of the test list, in file order: a patient stands in two parts, prevalence shifts",
    "b": "the checkpoint was chosen on the test set",
    "c": "stopped on validation",
    "d": "that it is the whole official test list, or what chose the checkpoint, could not be confirmed",
}


def among_peers(ours: float | None) -> list[tuple[str, float, str]]:
    """Table 3, highest first: model, mean AUROC of the 14 diseases in percent, footnote.

    Args:
        ours: in percent; None leaves us out.
    """
    rows = [*PEERS, *([] if ours is None else [(OURS, ours, "")])]
    return sorted(rows, key=lambda row: -row[1])


def compare_with_published(report: RankingReport, image_ids: Iterable[str], is_phantom: bool) -> list[str]:
    """Tables 2 (by finding) and 3 (means) with ours in them as lines of text; none for other data.

    Args:
        report: of the model that is compared.
        image_ids: of the scored images, of which one at least is ChestX-ray14's.
        is_phantom: the images are synthetic, and no table is shown: there is nothing to compare.
    """
    ours = {name: entry.auroc for name, entry in report.findings.items()}
    is_nih = any(image.startswith(f"{NIH.name}/") for image in image_ids)
    if not is_nih or not ours.keys() & PAPER_AUROC.keys():
        return []
    if is_phantom:
        return ["The paper's tables are not shown beside this: the images are synthetic."]
    lines = ["Beside the paper, AUROC in %"]
    if report.images != OFFICIAL_TEST_IMAGES:
        lines.append(
            f"(ours is on {report.images:,} images, not the official list's {OFFICIAL_TEST_IMAGES:,}: "
            "the columns do not compare)"
        )
    lines.append(f"{'Table 2: finding':<28} ours    paper (a)")
    for name, theirs in PAPER_AUROC.items():
        if name in ours:
            star = "*" if report.findings[name].has_few_cases else " "
            lines.append(f"{name.replace('_', ' '):<28} {_percent(ours[name])}{star}  {theirs:.2f}")
    everything = list(PAPER_AUROC.values())
    mean = sum(everything) / len(everything)
    count = sum(ours.get(name) is not None for name in PAPER_AUROC)
    complete = "" if count == len(PAPER_AUROC) else f"   (ours: {count} findings only)"
    lines.append(f"{'mean of 15':<28} {_percent(report.mean_auroc)}   {mean:.2f}{complete}")
    lines.append("Table 3: mean of 14 diseases")
    count = len(report.diseases.findings_in_mean)
    few = "" if count == len(PAPER_AUROC) - (NO_DISEASE in PAPER_AUROC) else f"({count} diseases only)"
    value = report.diseases.mean_auroc
    for name, percent, mark in among_peers(None if value is None else 100 * value):
        note = few if name == OURS else mark and f"({mark})"
        lines.append(f"{name:<28} {percent:5.2f}   {note}".rstrip())
    if any(entry.has_few_cases for entry in report.findings.values()):
        lines.append(f"* fewer than {FEWEST_PATIENTS} positive or negative patients: the value says little")
    return lines + [f"({mark}) {text}" for mark, text in FOOTNOTES.items()]


def _percent(value: float | None) -> str:
    return "  –  " if value is None else f"{100 * value:5.2f}"
