"""metrics.json of the commands that only evaluate: the report on a split, and how it was made.

Beside record.py, whose records are of stages; nothing reads these back.
"""

from dataclasses import dataclass, field
from pathlib import Path

from medhiera.evaluation.ensemble import EnsembleMember
from medhiera.evaluation.probe_results import ProbeFit
from medhiera.evaluation.report_results import ReportEvaluation
from medhiera.evaluation.results import ClassificationReport
from medhiera.hub.record import write_json
from medhiera.layout import METRICS_FILE


@dataclass(kw_only=True)
class EvaluationRecord:
    """metrics.json of evaluate_cls.py and probe.py: the report on a split, and how it was made.

    Attributes:
        model: a folder's own name or a Hub id; several, whose probabilities are averaged, joined by " + ".
        fingerprint: of its weights.
        split_scheme: how ChestX-ray14 was split.
        tta: the mean probability of each image and its mirror image was scored.
        legacy_head: sigmoid(softmax(logits)) was scored.
        is_phantom: the images are synthetic.
        probe_penalty: scikit-learn's C of a linear probe; None of a classifier.
        probe_train_images: that it was fitted on.
        probe: how it was fitted, and what fewer labels give.
        members: each of several models by itself.
    """

    model: str
    fingerprint: str
    split_scheme: str
    tta: bool
    legacy_head: bool
    is_phantom: bool
    evaluation: ClassificationReport
    probe_penalty: float | None = None
    probe_train_images: int | None = None
    probe: ProbeFit | None = None
    members: list[EnsembleMember] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Write metrics.json."""
        write_json(self, folder / METRICS_FILE)


@dataclass(kw_only=True)
class ReportEvaluationRecord:
    """metrics.json of evaluate_report.py.

    Attributes:
        model: a folder's own name or a Hub id.
        fingerprint: of its weights.
        split_scheme: how the data was split.
        is_phantom: the images are synthetic.
    """

    model: str
    fingerprint: str
    split_scheme: str
    is_phantom: bool
    evaluation: ReportEvaluation

    def write(self, folder: Path) -> None:
        """Write metrics.json."""
        write_json(self, folder / METRICS_FILE)
