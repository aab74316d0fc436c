"""The evaluation of written reports as lines of text, for the screen.

Beside tables.py, which has those of classifiers.
"""

from collections.abc import Mapping

from medhiera.evaluation.bootstrap import Difference
from medhiera.evaluation.caption_results import CaptionReport, CaptionScores, Laterality
from medhiera.evaluation.report_results import ReportEvaluation
from medhiera.formatting import interval_text


def report_lines(evaluation: ReportEvaluation) -> list[str]:
    """A table of the model and what needs no model, and what the table hides."""
    named = {
        "written by the model": evaluation.written,
        **{f"constant, by {one.chosen_by}": one.scores for one in evaluation.constants},
        "nearest by picture": evaluation.nearest,
    }
    header = f"{evaluation.split}, {evaluation.section}"
    lines = [f"{header:24} {'BLEU-4':>7} {'ROUGE-L':>8} {'CIDEr-D':>24} {'distinct':>9}  sides right"]
    lines += [_line(name, report) for name, report in named.items()]
    difference = evaluation.above_constant["cider"]
    lines.append(
        f"CIDEr-D above the constant: {difference.difference:.3f} ({interval_text(difference.interval)}); "
        f"{evaluation.written.distinct} distinct of {evaluation.written.scores.studies}, "
        f"{100 * (evaluation.written.verbatim_in_training or 0):.0f} % verbatim in training"
    )
    sides = evaluation.written.laterality
    if sides.written:
        lines.append(
            f"{sides.written} reports name a side, {100 * (sides.share_written_correct or 0):.0f} % of them "
            f"the reference's ({interval_text(sides.share_written_correct_interval)})"
        )
    lines += [line for name, report in named.items() for line in _clinical_lines(name, report)]
    for kind, scores in (("normal", evaluation.written.normal), ("other", evaluation.written.abnormal)):
        if scores is not None:
            lines.append(f"{kind} studies: {scores.studies}, {_scores(scores)}")
    if evaluation.normal_reason:
        lines.append(f"normal and other studies: {evaluation.normal_reason}")
    elif evaluation.unknown_studies:
        lines.append(f"annotated as neither: {evaluation.unknown_studies} studies")
    return lines


def difference_lines(differences: Mapping[str, Difference]) -> list[str]:
    """One line a measure."""
    return [
        f"  {name:8} {one.difference:+.3f} ({interval_text(one.interval)})"
        + ("" if one.p_value is None else f", p {one.p_value:.3f}")
        for name, one in differences.items()
    ]


def _clinical_lines(name: str, report: CaptionReport) -> list[str]:
    """CheXbert's and RadGraph's F1, where they were computed."""
    lines = []
    if (labels := report.chexbert) is not None:
        lines.append(
            f"{name:24} CheXbert F1, 14 conditions: micro {labels.micro_f1:.3f} "
            f"({interval_text(labels.micro_f1_interval)}), macro {labels.macro_f1:.3f} "
            f"({interval_text(labels.macro_f1_interval)}); five: micro {labels.micro_f1_five:.3f}, "
            f"macro {labels.macro_f1_five:.3f}"
        )
    if (graph := report.radgraph) is not None:
        lines.append(
            f"{name:24} RadGraph F1: simple {graph.simple:.3f}, partial {graph.partial:.3f} "
            f"({interval_text(graph.partial_interval)}), complete {graph.complete:.3f}"
        )
    return lines


def _line(name: str, report: CaptionReport) -> str:
    scores = report.scores
    cider = f"{scores.cider:.3f} ({interval_text(scores.cider_interval)})"
    return (
        f"{name:24} {scores.bleu_4:7.3f} {scores.rouge_l:8.3f} {cider:>24} {report.distinct:9}  "
        f"{_sides(report.laterality)}"
    )


def _sides(sides: Laterality) -> str:
    return f"{sides.correct} of {sides.studies}" + (
        f", {sides.wrong} wrong, {sides.missing} missing" if sides.studies else ""
    )


def _scores(scores: CaptionScores) -> str:
    return f"BLEU-4 {scores.bleu_4:.3f}, ROUGE-L {scores.rouge_l:.3f}, CIDEr-D {scores.cider:.3f}"
