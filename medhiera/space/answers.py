"""What the page shows for a picture, for another look at it, and where there is nothing to show.

app.py → here → page.py, which writes the HTML. No picture but the one whose result stands on the page is
looked at again: the page holds its digest.
"""

import time
from collections.abc import Callable
from typing import Any

import gradio as gr

from dataset_scripts.reading.grayscale import GrayImage
from medhiera.space import page
from medhiera.space.examples import NO_FINDING
from medhiera.space.pictures import Picture, digest
from medhiera.space.reader import MaskedReader, Reader, WritingReader

BAD_LUCK = "Something went wrong with this picture; it was not analysed, and nothing of it was kept."
FORGOTTEN = "The picture is no longer in memory; drop it again."


def answer(reader: Reader, picture: Picture, started: float, *settings: Any) -> tuple[Any, ...]:
    """What the page shows for a picture: upload (emptied), memory, result, controls, choice, view, digest.

    Args:
        reader: the open folder.
        picture: what was read.
        started: perf_counter at its arrival.
        settings: for a MaskedReader the share to hide and the seed.
    """
    visible, shown = gr.update(visible=True), digest(picture.gray)
    if isinstance(reader, MaskedReader):
        ratio, seed = settings
        filled = reader.fill_in(picture.gray, ratio, int(seed))
        text = page.filled_view(filled, picture.notes, time.perf_counter() - started)
        return None, picture.gray, text, visible, seed, "", shown
    if isinstance(reader, WritingReader):
        text = page.report_view(reader, picture.gray, picture.notes, started)
        return None, picture.gray, text, gr.update(visible=False), gr.skip(), "", shown
    findings = reader.findings(picture.gray)
    classifier = reader.classifier
    notes = [*picture.notes, *reader.operation.notes(classifier.names, classifier.is_exclusive)]
    text = page.findings_table(findings, notes, time.perf_counter() - started)
    likeliest = next((each.name for each in findings if each.name != NO_FINDING), findings[0].name)
    view = page.heat_view(reader, picture.gray, likeliest)
    return None, picture.gray, text, visible, likeliest, view, shown


def refuse(sentence: str) -> tuple[Any, ...]:
    """As `answer`, where there is none: nothing of an earlier picture stays on the page or in memory."""
    return None, None, page.refusal(sentence), gr.update(visible=False), gr.skip(), "", ""


def act_on_shown(
    opening: GrayImage | None,
    act: Callable[..., str],
    seen: GrayImage | None,
    shown: str,
    *settings: Any,
) -> str:
    """Another look at the picture that the page shows; a sentence where that is no longer at hand.

    Args:
        opening: the picture that the page opens with, which no session has in its memory at first.
        act: called with the picture and the settings.
        seen: the picture in the session's memory; None when its time is up or the page was started anew.
        shown: the digest of the picture whose result stands on the page.
        settings: what the reader has chosen.
    """
    for gray in (seen, opening):
        if gray is not None and digest(gray) == shown:
            return act(gray, *settings)
    return page.refusal(FORGOTTEN)


def fill_again(reader: MaskedReader, gray: GrayImage, ratio: float, seed: int) -> str:
    """Another mask on a picture."""
    started = time.perf_counter()
    return page.filled_view(reader.fill_in(gray, ratio, int(seed)), [], time.perf_counter() - started)
