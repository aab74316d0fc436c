"""Renders a stage's model card from its metrics.json alone; it computes no number.

The committed examples are rendered anew by

    python -m medhiera.hub.model_card
    python -m medhiera.hub.model_card runs/stage2
"""

# ruff: noqa: E402  (the parser stands above what takes seconds to import)

import argparse
from pathlib import Path

from medhiera.command_line import new_parser


def build_parser() -> argparse.ArgumentParser:
    """The options of this command."""
    parser = new_parser(__doc__)
    parser.add_argument(
        "folders", nargs="*", type=Path, help="stage folders (default: model_cards/examples/*)"
    )
    return parser


if __name__ == "__main__":  # --help and mistyped options are answered now
    build_parser().parse_args()

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

import jinja2

from dataset_scripts import SOURCES
from dataset_scripts.chestxray14 import OFFICIAL_TEST_IMAGES
from dataset_scripts.markdown import escape_markdown, front_matter
from medhiera.data.build_reports import LeakageCounts
from medhiera.data.training_images import names_are_public
from medhiera.errors import UserError
from medhiera.evaluation.predictions import FEWEST_PATIENTS
from medhiera.evaluation.tables import few_cases, without_interval
from medhiera.formatting import duration, interval_text, percent, threshold_text
from medhiera.hub.card_header import card_header
from medhiera.hub.data_record import OWN
from medhiera.hub.licences import licence_sentence
from medhiera.hub.model_index import NIH, has_phantoms
from medhiera.hub.pictures import CAPTIONS, PROBE_FIGURES, examples_in, figures_of
from medhiera.hub.probe_record import ProbeRecord
from medhiera.hub.record import AnyRecord, Lineage, PretrainingRecord, read_record
from medhiera.hub.result_warnings import is_short, result_warnings
from medhiera.layout import CARD_FILE, FIGURES_FOLDER, METRICS_FILE
from medhiera.output import write_error
from medhiera.shipped_files import TEMPLATES
from medhiera.stages import STAGES

_WITH_NIH_NAMES = {NIH, "RSNA Pneumonia", "COVID-19 Radiography"}
"""Sources of which some images are ChestX-ray14's by another name."""

MEASURES = {"bleu_1": "BLEU-1", "bleu_2": "BLEU-2", "bleu_3": "BLEU-3", "bleu_4": "BLEU-4",
            "rouge_l": "ROUGE-L", "cider": "CIDEr-D"}  # fmt: skip
"""Of written reports."""


def render_card(record: AnyRecord, figures: Sequence[str], examples: Sequence[str] = ()) -> str:
    """The README.md of a stage's folder: YAML metadata, then Markdown.

    Args:
        record: the folder's.
        figures: paths of the pictures, relative to the folder.
        examples: paths of pictures for the Hub's widget; the file's name is its title.

    Raises:
        jinja2.UndefinedError: the template shows a field that the record lacks.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # Markdown, not HTML: see _inert
        keep_trailing_newline=True,
        finalize=_inert,
    )
    environment.filters |= {
        "counts": _counts,
        "interval": interval_text,
        "duration": duration,
        "threshold": threshold_text,
        "percent": lambda value: "–" if value is None else f"{percent(value)} %",
        "measure": lambda name: MEASURES.get(name, name),
        "number": lambda value: "–" if value is None else f"{value:.3f}",
        "rate": lambda value: f"{value:,.0f}" if value >= 10 else f"{value:.2g}",
        "caption": lambda figure: _caption(PurePosixPath(figure).stem, record.scored_split),
        "url": quote,
    }
    stage = STAGES[record.key]
    title = stage.title.format(data=" and ".join(_trained_on(record))) + _suffix(record)
    body = environment.get_template(stage.card_template).render(
        metrics=record,
        figures=figures,
        title=title,
        unit=stage.arguments.unit,
        is_nih=NIH in record.trained_on,
        names_nih=bool({*record.trained_on, *record.lineage.earlier_sources} & _WITH_NIH_NAMES),
        cites_nih=NIH in record.real_sources,
        is_official_list=not has_phantoms(record) and record.tested_on == {NIH: OFFICIAL_TEST_IMAGES},
        citations=_citations(record),
        few=FEWEST_PATIENTS,
        few_cases=few_cases,
        without_interval=without_interval,
        warnings=result_warnings(record),
        leakage=None if record.leakage is None else _leakage(record.leakage),
        leakage_before=_leakage_before(record.lineage),
        licence=licence_sentence(record),
        ships_code=stage.ships_code,
        unnamed=[source for source in record.real_sources if not names_are_public(source)],
    )
    return f"{front_matter(card_header(record, stage, title, examples))}\n{body}"


def _trained_on(record: AnyRecord) -> list[str]:
    """The data of this stage as its title names it: your own images by their dataset, where it has a name."""
    titles = {source.name: source.title for source in SOURCES if source.name in record.trained_on}
    if OWN in titles and record.own_images is not None:
        titles[OWN] = record.own_images.public_name or titles[OWN]
    return list(titles.values())


def check_probe_fits(folder: Path) -> None:
    """Refuse, before anything is embedded, to write a probe where no card could show it.

    Raises:
        UserError: it is not the finished folder of a stage 1.
    """
    if not folder.is_dir() or not isinstance(read_record(folder), PretrainingRecord):
        raise UserError(
            f"--update_card: {folder} is no folder of a finished stage 1, whose card alone shows a probe; "
            "leave the option out"
        )
    check_unchanged(folder)


def check_unchanged(folder: Path) -> None:
    """Refuse to write a card anew that holds more than its record says.

    Raises:
        UserError: somebody changed it, or an earlier version wrote it.
    """
    card = folder / CARD_FILE
    try:
        found = card.read_text(encoding="utf-8") if card.exists() else None
    except (OSError, ValueError) as error:
        raise UserError(f"{card} cannot be read: {error}") from error
    rendered = card_of(folder)
    if found is not None and with_placeholders(found, rendered) != rendered:
        raise UserError(
            f"--update_card: {card} is not what its {METRICS_FILE} renders: what was added there, or what an "
            f"earlier version wrote, would be lost. Keep a copy, write the card anew (python -m "
            f"medhiera.hub.model_card {folder}), repeat this, and then add yours to the new card"
        )


def add_probe(folder: Path, probe: ProbeRecord, figures: Path) -> None:
    """Write a probe into the record of a stage 1, copy its figures, and render the card anew.

    Args:
        folder: the stage's.
        probe: takes the place of an earlier one.
        figures: holds label_efficiency.png and few_shots.png, where there was something to draw.

    Raises:
        UserError: the folder cannot be written to, or see check_probe_fits.
    """
    check_probe_fits(folder)
    record = read_record(folder)
    assert isinstance(record, PretrainingRecord)
    record.probe = probe
    try:
        (folder / FIGURES_FOLDER).mkdir(exist_ok=True)
        for name in (f"{figure}.png" for figure in PROBE_FIGURES):
            (folder / FIGURES_FOLDER / name).unlink(missing_ok=True)
            if (figures / name).is_file():
                shutil.copy(figures / name, folder / FIGURES_FOLDER / name)
        record.write(folder)
        (folder / CARD_FILE).write_text(card_of(folder), encoding="utf-8")
    except OSError as error:
        raise write_error("--model", folder, error) from error


def _inert(value: Any) -> Any:
    """What every `{{ }}` of a template gives: names of labels, files and folders come from outside."""
    return value if isinstance(value, jinja2.Undefined) else escape_markdown(str(value))


def _caption(figure: str, split: str) -> str:
    return CAPTIONS[figure].format(split=split) if figure in CAPTIONS else re.sub(r"[\[\]]", " ", figure)


def _suffix(record: AnyRecord) -> str:
    """What a title says of a model that no one should take for a trained one."""
    if record.kind == "smoke":
        return " (smoke run)"
    if record.is_phantom:
        return " (on phantoms)"
    return " (less than one epoch)" if is_short(record) else ""


def _citations(record: AnyRecord) -> list[str]:
    """Whom to cite for the images that the weights have seen."""
    seen = record.real_sources
    return [source.citation for source in SOURCES if source.name in seen and source.citation]


def _counts(images: Mapping[str, int]) -> str:
    return ", ".join(f"{source} {count:,}" for source, count in images.items()) + " images"


def _leakage(leakage: LeakageCounts) -> str:
    """What was done so that no held-out image was trained on, and which were all the same."""
    if leakage.seen_before:
        seen = " and ".join(
            f"{count:,} of the {split} images" for split, count in leakage.seen_before.items()
        )
        return (
            f"ALLOWED. The weights it started from, or its teacher, had been trained on {seen}; scores on "
            f"these are too high. Among its own training images: {_leakage(replace(leakage, seen_before={}))}"
        )
    if not leakage.is_checked:
        return "not checked; held-out images may stand in the training data under another name."
    protected = (
        f", and with {leakage.protected:,} images that are held out elsewhere" if leakage.protected else ""
    )
    unsure = ""
    if leakage.unsure:
        alike = ", where drawn chests are alike" if leakage.unsure_drawn else ""
        unsure = (
            f" {leakage.unsure:,} of these were found by a score near the threshold{alike}: some may show "
            "another image, so look at them in the build's contact sheet."
        )
    if leakage.allowed:
        return (
            f"ALLOWED. {leakage.allowed:,} training images show a held-out image and "
            f"were kept, as in the paper; scores on the test split are too high.{unsure}"
        )
    found = "none shows one of them."
    if leakage.dropped:
        found = f"the {leakage.dropped:,} that show{'s' * (leakage.dropped == 1)} one of them were left out."
    return (
        f"{leakage.compared:,} training images were compared with the {leakage.held_out:,} held-out images "
        f"by pixels and by name{protected}; {found}{unsure}"
    )


def _leakage_before(lineage: Lineage) -> list[str]:
    """The same of each stage that the weights went through before this one."""
    if lineage.leakage_before is None:
        return ["Leakage before this stage: not known; nothing is recorded of what its first weights saw."]
    return [
        f"Leakage in stage {before.stage}, which it started from: {_leakage(before)}"
        for before in lineage.leakage_before
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the README.md of stage folders from the metrics.json, figures/ and examples/ they hold."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    rendered = sorted(path.parent for path in (TEMPLATES / "examples").glob(f"*/{METRICS_FILE}"))
    try:
        for folder in options.folders or rendered:
            (folder / CARD_FILE).write_text(card_of(folder), encoding="utf-8")
    except UserError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")


def card_of(folder: Path) -> str:
    """The card of a folder as it stands: its metrics.json, and the figures and examples of its record.

    Raises:
        UserError: the folder holds no record of a stage, or a picture whose name is no line of UTF-8.
    """
    record = read_record(folder)
    if record is None:
        raise UserError(f"{folder} holds no {METRICS_FILE}; name a stage's folder")
    figures, examples = (
        [path.relative_to(folder).as_posix() for path in paths]
        for paths in (figures_of(folder, record), examples_in(folder))
    )
    for name in (*figures, *examples):
        if not name.isprintable():
            raise UserError(f"{folder} holds {ascii(name)}, which no card can name; rename it")
    return render_card(record, figures, examples)


def with_placeholders(card: str, rendered: str) -> str:
    """A published card as it was before: its code names no repository and no tag.

    A line that somebody wrote, or changed, stays as it is.

    Args:
        card: of a folder.
        rendered: what its record renders, with THIS_FOLDER and THIS_REVISION.
    """
    names = {"THIS_FOLDER": r"[\w.-]+/[\w.-]+", "THIS_REVISION": r"medhiera-[0-9a-f]+"}
    own = {}
    for line in rendered.split("\n"):
        if any(name in line for name in names):
            pattern = re.escape(line)
            for name, filled in names.items():
                pattern = pattern.replace(name, filled)
            own[re.compile(pattern)] = line
    return "\n".join(
        next((line for pattern, line in own.items() if pattern.fullmatch(found)), found)
        for found in card.split("\n")
    )


if __name__ == "__main__":
    main()
