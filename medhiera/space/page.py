"""What the page says, as HTML; every word from outside is escaped, every picture is inside the page."""

import html
import time
from collections.abc import Sequence

import numpy as np

from dataset_scripts.reading.grayscale import GrayImage
from medhiera.hub.operation import Finding
from medhiera.inference.classifier import NOTICE
from medhiera.inference.reconstruction import Reconstruction
from medhiera.space.pictures import color_heat, heat_scale, image_tag, what_the_model_sees
from medhiera.space.reader import ChestReader, WritingReader

DEMO = "This model is a demo (synthetic phantoms, or a few steps): its numbers say nothing about people."

SCALE = (
    '<div class="scale"><span>0</span><span class="strip">{strip}</span><span>100 %</span></div>'
    "<p class=\"small\">How much a place raises the finding's logit, in % of this map's largest value.</p>"
)
"""The color bar of a heat map, on mid gray; its opacity is the map's."""

MOVE_HEAT = "(share) => { document.documentElement.style.setProperty('--heat-opacity', share); }"
"""Run in the browser when the slider moves; the server hears nothing of it."""


def notice(is_demo: bool) -> str:
    """The lines at the top."""
    return f'<div class="notice" role="note"><b>{NOTICE}</b>{f"<br>{DEMO}" if is_demo else ""}</div>'


def refusal(sentence: str) -> str:
    """One sentence in place of a result."""
    return f'<div class="refusal" role="alert">{html.escape(sentence)}</div>'


def waiting(sentence: str) -> str:
    """What stands where a result will be."""
    return f'<div class="empty">{html.escape(sentence)}</div>'


def findings_table(findings: Sequence[Finding], notes: Sequence[str], seconds: float) -> str:
    """Probabilities, calibrated ones and thresholds, and how they are to be read.

    Args:
        findings: the likeliest first.
        notes: sentences below the table.
        seconds: from file to probabilities.
    """
    has_calibrated = any(finding.calibrated is not None for finding in findings)
    has_thresholds = any(finding.threshold is not None for finding in findings)
    rows = []
    for finding in findings:
        name, label = html.escape(finding.name, quote=True), html.escape(shown_name(finding.name))
        verdict = "above" if finding.is_marked else "below"
        if finding.is_called is not None:
            title = "the most probable" if finding.is_called else "less probable"
        else:
            title = f"{verdict} its threshold" if finding.threshold is not None else "no threshold"
        mark = ""
        if finding.threshold is not None:
            mark = f'<span class="mark" style="left:{finding.threshold:.1%}"></span>'
        rows.append(
            f'<tr class="{verdict}" data-finding="{name}"><td class="name">{label}</td>'
            f'<td class="scale"><span class="bar" title="{title}"><span class="fill" '
            f'style="width:{finding.probability:.1%}"></span>{mark}</span></td>'
            f'<td class="number probability">{finding.probability:.3f}</td>'
            + (_number(finding.calibrated, "calibrated") if has_calibrated else "")
            + (_number(finding.threshold, "threshold") if has_thresholds else "")
            + "</tr>"
        )
    columns = ["Probability", *["Calibrated"] * has_calibrated, *["Threshold"] * has_thresholds]
    heads = "".join(f'<th class="number">{column}</th>' for column in columns)
    said = ""
    if has_thresholds:
        above = sum(finding.is_marked for finding in findings)
        said = f"{above} of {len(findings)} above the threshold (in bold). "
    elif any(finding.is_called for finding in findings):
        said = "The most probable label is called (in bold). "
    return (
        '<div class="findings"><table><thead><tr><th class="name">Finding</th>'
        f'<th class="scale">0 to 1{" (line: threshold)" if has_thresholds else ""}</th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        f'<p class="small">{said}{_sentences(notes)} From file to probabilities: {seconds:.2f} s.</p>'
    )


def _number(value: float | None, kind: str) -> str:
    """A cell; a dash where there is no such number."""
    return f'<td class="number {kind}">{"–" if value is None else f"{value:.3f}"}</td>'


def heat_view(reader: ChestReader, gray: GrayImage, name: str) -> str:
    """The picture as the model sees it, and heat on it whose opacity the slider sets, if it may be shown."""
    picture = image_tag(what_the_model_sees(gray, reader.crop), "The radiograph, its center square")
    label = shown_name(name)
    verdict, sentence = reader.operation.heat_verdict(name)
    overlay, scale, text = "", "", html.escape(sentence)
    if verdict != "not above chance":
        heat = reader.heat(gray, name)
        overlay = image_tag(color_heat(heat), f"Heat map for {label}", "heat")
        scale = SCALE.format(strip=image_tag(heat_scale(), "Colors of the heat map", "heat"))
        nothing = "" if heat.any() else " Nothing in this picture speaks for it."
        text = f"Brighter: speaks more for {html.escape(label)}.{nothing} {text}"
    return (
        f'<div class="viewer" data-finding="{html.escape(name, quote=True)}">{picture}{overlay}</div>{scale}'
        f'<p class="small">{text} Shown is the center square that the model sees.</p>'
    )


def report_view(reader: WritingReader, gray: GrayImage, notes: Sequence[str], started: float) -> str:
    """What the model wrote, beside the picture as it sees it.

    Args:
        reader: the open folder.
        gray: (height, width), uint8.
        notes: sentences below the report.
        started: perf_counter when the file arrived.
    """
    written = reader.report(gray)
    seconds = time.perf_counter() - started
    picture = image_tag(what_the_model_sees(gray, reader.crop), "The radiograph, its center square")
    text = html.escape(written) or "The model wrote nothing."
    return (
        f'<div class="viewer">{picture}</div><blockquote class="report">{text}</blockquote>'
        '<p class="small">Written by a model that was trained to sound like a radiologist: every sentence '
        f"may be wrong. It saw this one picture alone. {_sentences(notes)} "
        f"From file to report: {seconds:.2f} s.</p>"
    )


def filled_view(pictures: Reconstruction, notes: Sequence[str], seconds: float) -> str:
    """Original, masked and filled in, side by side."""
    figures = []
    for caption, picture in (
        ("Original", pictures.original),
        ("Masked", pictures.masked),
        ("Filled in", pictures.filled),
    ):
        pixels = np.rint(picture[0].numpy() * 255).astype(np.uint8)
        figures.append(f"<figure>{image_tag(pixels, caption)}<figcaption>{caption}</figcaption></figure>")
    return (
        f'<div class="triptych">{"".join(figures)}</div>'
        f'<p class="small">{pictures.note} {_sentences(notes)} From file to pictures: {seconds:.2f} s.</p>'
    )


def shown_name(name: str) -> str:
    """A label as a reader writes it: Pleural_Thickening → Pleural Thickening."""
    return name.replace("_", " ")


def _sentences(notes: Sequence[str]) -> str:
    return " ".join(html.escape(note) for note in notes)
