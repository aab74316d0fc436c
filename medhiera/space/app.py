"""A page to try a stage's folder on: drop a radiograph, see what its model finds, writes or fills in.

    medhiera app demo/phantom/stage2
    medhiera app demo/phantom/stage1 --port 7861
    medhiera app demo/phantom/stage2 --time 20

The first two serve the page on this machine alone; the last prints the latency per image and ends. Also
a Hub Space's app_file, its model in `model/`. Needs the extra `app`.

Nothing uploaded is kept: a file is deleted as soon as it has been read, its pixels live in the session's
memory for half an hour at most, and results are pictures inside the page. Nothing is fetched at run time.
"""

import argparse
import atexit
import io
import logging
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
if str(PROJECT) not in sys.path:
    sys.path.insert(0, str(PROJECT))  # in a Space, and in a clone, nothing of ours is installed

from medhiera.command_line import add_device_option, new_parser, show_progress


def build_parser() -> argparse.ArgumentParser:
    """The options of this command."""
    parser = new_parser(__doc__)
    bundled = PROJECT / "model"
    default = bundled if bundled.is_dir() else Path("demo/phantom/stage2")
    parser.add_argument("folder", nargs="?", type=Path, default=default, help="a stage 1 or 2")
    parser.add_argument("--port", type=int, help="default: a free one from 7860 on")
    parser.add_argument("--time", type=int, metavar="N", help="only print the latency over N images")
    add_device_option(parser)
    return parser


if __name__ == "__main__":  # --help and mistyped options are answered now
    build_parser().parse_args()

UPLOADS = Path(tempfile.mkdtemp(prefix="medhiera-page-"))
"""Gradio's folder for what a browser sends; gone with the process."""
SHOWN = Path(tempfile.mkdtemp(prefix="medhiera-examples-"))
"""The example pictures, which nobody may change; gone with the process."""
for each in (UPLOADS, SHOWN):
    atexit.register(shutil.rmtree, each, ignore_errors=True)
# Read when the libraries below are imported: no telemetry, no look-up on the Hub, uploads where we end them.
os.environ |= {"HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(UPLOADS)}

from medhiera.space import zero_gpu  # isort: skip  (before what imports PyTorch)

import gradio as gr
from starlette.middleware import Middleware

from dataset_scripts.reading.grayscale import GrayImage
from medhiera.device import choose_device, log_device
from medhiera.errors import UserError
from medhiera.hub.widget_examples import draw_example
from medhiera.plotting import HEAT_OPACITY
from medhiera.space import page
from medhiera.space.answers import BAD_LUCK, act_on_shown, answer, fill_again, refuse
from medhiera.space.examples import Example, Opening, choose_opening, draw_examples
from medhiera.space.guard import LARGEST_UPLOAD, RequestGuard
from medhiera.space.pictures import WHAT_IS_CHECKED, Picture, RefusedError, read_upload
from medhiera.space.reader import ChestReader, MaskedReader, Reader, WritingReader, open_folder

logger = logging.getLogger(__name__)

SECONDS_IN_MEMORY = 1800
LONGEST_QUEUE = 20
"""Requests that wait for the model; whoever comes then is told that the queue is full."""
ALONE: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1, "api_visibility": "private"}
"""One picture at a time goes through the model: two would share the cores and make both visitors wait."""
KINDS = {
    ChestReader: ("classifier", "findings"),
    WritingReader: ("model that writes reports", "what it writes"),
    MaskedReader: ("masked autoencoder", "what is filled in"),
}
"""What each kind of model is called, and what its results are."""
TITLE = "# MedHiera\nA chest radiograph, read by a Hiera {kind}. Drop a file{choice}."
CHOICE = ", or choose a phantom: a synthetic chest, drawn with the finding named below it"


def write_examples(examples: list[Example]) -> list[tuple[str, str]]:
    """Write the examples where Gradio serves them from and no request can name them for anything else."""
    gr.set_static_paths(SHOWN)
    shown = []
    for number, example in enumerate(examples):
        file = SHOWN / str(number) / "image.png"
        if not file.is_file():
            file.parent.mkdir()
            example.image.save(file)
            file.chmod(0o444)
        shown.append((str(file), example.caption))
    return shown


def take_upload(sent: str) -> Picture:
    """Read an uploaded file and delete it, whether or not it can be read.

    Args:
        sent: where Gradio put it.

    Raises:
        RefusedError: one sentence for the page.
    """
    path = Path(sent)
    try:
        return read_upload(path)
    except RefusedError:
        raise
    except Exception as error:  # unforeseen; the user sees a sentence, the log has the trace
        logger.exception("an upload could not be read")
        raise RefusedError(BAD_LUCK) from error
    finally:
        path.unlink(missing_ok=True)


def build_page(reader: Reader) -> gr.Blocks:
    """The page for a model of either kind."""
    examples = draw_examples(reader)
    is_chest = isinstance(reader, ChestReader)
    kind, wanted = KINDS[type(reader)]
    opening, opened = open_with(reader, examples)
    with gr.Blocks(
        title="MedHiera", analytics_enabled=False, delete_cache=(300, SECONDS_IN_MEMORY)
    ) as blocks:
        # Gradio gives a State's first value back when its time is up: a picture there would come back too.
        seen = gr.State(None, time_to_live=SECONDS_IN_MEMORY)
        shown = gr.Textbox(opened[6] if opened else "", visible=False)
        gr.Markdown(TITLE.format(kind=kind, choice=CHOICE if examples else ""))
        gr.HTML(page.notice(reader.operation.is_demo))
        with gr.Row():
            with gr.Column(scale=4, min_width=320):
                # No file_types: Gradio would refuse by suffix, in its own words, and keep what it refused.
                upload = gr.File(label="PNG, JPEG, TIFF, BMP or DICOM", elem_id="upload", height=150)
            with gr.Column(scale=8, min_width=320, visible=bool(examples)):
                gallery = _gallery(examples)
        with gr.Row():
            with gr.Column(scale=7, min_width=320):
                waiting = page.waiting(f"{opening.note} Choose a picture to see {wanted}.".strip())
                result = gr.HTML(opened[2] if opened else waiting, elem_id="result")
            width = {"scale": 5 if is_chest else 2, "min_width": 320}
            with gr.Column(**width, visible=bool(opened), elem_id="controls") as controls:
                view = gr.HTML(opened[5] if opened else "", elem_id="view", visible=is_chest)
                chosen, slider, again = _controls(reader, opened[4] if opened else None)
        gr.HTML(f'<p class="small">{WHAT_IS_CHECKED} Nothing uploaded is kept.</p>')
        outputs = [upload, seen, result, controls, chosen, view, shown]
        _listen(blocks, reader, examples, opened[1] if opened else None, outputs, gallery, slider, again)
    return blocks.queue(max_size=LONGEST_QUEUE, default_concurrency_limit=1)


def _listen(
    blocks: gr.Blocks, reader: Reader, examples: list[Example], opening: GrayImage | None, outputs: list[Any],
    gallery: gr.Gallery, slider: Any, again: Any,
) -> None:  # fmt: skip
    """What is done when the reader drops, chooses or moves something, and when that fails.

    Args:
        blocks: the page.
        reader: the open folder.
        examples: those of the gallery.
        opening: the picture that the page opens with.
        outputs: what `answer` fills.
        gallery: of the examples.
        slider: of a classifier the heat's opacity, of a masked autoencoder the share hidden.
        again: the button for another mask.
    """
    upload, seen, result, _, chosen, view, shown = outputs
    # Where a Space lends a GPU, it is for these calls; the checks before them stay in this process.
    give_answer = zero_gpu.on_gpu(partial(answer, reader))

    def on_upload(sent: str | None, *settings: Any) -> Sequence[Any]:
        started = time.perf_counter()
        if not sent:
            return [gr.skip()] * 7
        try:
            if sent not in blocks.upload_file_set:  # the guard has looked at the request already
                raise RefusedError("This is no uploaded file; drop one.")
            return give_answer(take_upload(sent), started, *settings)
        except RefusedError as error:
            return refuse(str(error))

    def on_example(event: gr.SelectData, *settings: Any) -> Sequence[Any]:
        started = time.perf_counter()
        if event.index not in range(len(examples)):
            return refuse("There is no such example.")
        return give_answer(Picture(examples[event.index].gray), started, *settings)

    def on_failure(sent: str | None) -> Sequence[Any]:
        if sent and sent in blocks.upload_file_set:  # nobody came to read it where the queue was full
            Path(sent).unlink(missing_ok=True)
        return refuse(BAD_LUCK)

    settings = [slider, chosen] if isinstance(reader, MaskedReader) else []
    events = [
        upload.upload(on_upload, [upload, *settings], outputs, **ALONE),
        gallery.select(on_example, settings, outputs, **ALONE),
    ]
    again_on = partial(act_on_shown, opening)
    if isinstance(reader, ChestReader):
        slider.change(None, slider, None, js=page.MOVE_HEAT)
        see_heat = partial(again_on, zero_gpu.on_gpu(partial(page.heat_view, reader)))
        events.append(chosen.input(see_heat, [seen, shown, chosen], view, **ALONE))
    elif isinstance(reader, MaskedReader):
        see_filled = partial(again_on, zero_gpu.on_gpu(partial(fill_again, reader)))
        masked = (see_filled, [seen, shown, slider, chosen], result)
        drawn = again.click(lambda seed: seed + 1, chosen, chosen, api_visibility="private")
        events += [slider.release(*masked, **ALONE), drawn.then(*masked, **ALONE)]
    for event in events:  # without the queue, which may be what failed
        event.failure(on_failure, upload, outputs, queue=False, api_visibility="private")


def open_with(reader: Reader, examples: list[Example]) -> tuple[Opening, tuple[Any, ...] | None]:
    """What a visitor sees first: an example that the model calls right, answered once for all visitors.

    Args:
        reader: the open folder.
        examples: to choose from.

    Returns:
        How it was chosen, and what `answer` gives for it; None where there is none to be opened with: of
        another kind of model, and where no GPU is lent before somebody asks.
    """
    if not isinstance(reader, ChestReader) or zero_gpu.IS_THERE:
        return Opening(None, ""), None
    opening = choose_opening(reader, examples)
    if opening.example is None:
        return opening, None
    picture = Picture(opening.example.gray, (opening.note,))
    return opening, answer(reader, picture, time.perf_counter())


def _gallery(examples: list[Example]) -> gr.Gallery:
    """The examples to choose from."""
    return gr.Gallery(
        write_examples(examples), label="Example phantoms", show_label=False, columns=6, height="auto",
        interactive=False, allow_preview=False, elem_id="examples", object_fit="cover", buttons=[],
        format="png",
    )  # fmt: skip


def _controls(reader: Reader, finding: str | None) -> tuple[Any, Any, Any]:
    """What the reader may change: (finding, opacity of the heat, -) or (seed, share hidden, another mask).

    Args:
        reader: the open folder.
        finding: whose heat map is shown at first; None for nobody's.
    """
    if isinstance(reader, ChestReader):
        names = [(page.shown_name(name), name) for name in reader.classifier.names]
        # Where no map can come, `page.heat_view` says why; where some can, style.css hides the slider beside
        # a finding without one.
        is_shown = reader.operation.has_heat_maps(reader.classifier.names)
        chosen = gr.Dropdown(
            names, value=finding, label="Heat map for", elem_id="finding", filterable=False, visible=is_shown
        )
        slider = gr.Slider(
            0, 1, HEAT_OPACITY,
            step=0.05, label="Opacity of the heat map", elem_id="opacity", visible=is_shown,
        )  # fmt: skip
        return chosen, slider, None
    if isinstance(reader, WritingReader):
        return gr.State(0), None, None
    slider = gr.Slider(
        0.3, 0.9, reader.model.config.mask_ratio, step=0.05, label="Share hidden", elem_id="ratio"
    )
    return gr.State(0), slider, gr.Button("Another mask", elem_id="again")


def latency(reader: Reader, times: int, side: int = 1024) -> list[float]:
    """Seconds from the bytes of a PNG to a result, one image after the other, after one that is not timed.

    Args:
        reader: the open folder.
        times: how many.
        side: of the phantom, in pixels.
    """
    buffer = io.BytesIO()
    draw_example(["Effusion"], 0, side).save(buffer, "png")
    seconds = []
    for _ in range(times + 1):
        sent = Path(tempfile.mkdtemp(dir=UPLOADS)) / "phantom.png"
        sent.write_bytes(buffer.getvalue())
        started = time.perf_counter()
        picture = take_upload(str(sent))
        if isinstance(reader, ChestReader):
            page.heat_view(reader, picture.gray, reader.findings(picture.gray)[0].name)
        elif isinstance(reader, WritingReader):
            reader.report(picture.gray)
        else:
            reader.fill_in(picture.gray, 0.6, 0)
        seconds.append(time.perf_counter() - started)
    return seconds[1:]


def launch(blocks: gr.Blocks, port: int | None = None, *, wait: bool = True) -> str:
    """Serve the page, on this machine alone unless GRADIO_SERVER_NAME says otherwise (a Space does).

    Args:
        blocks: from `build_page`.
        port: None takes a free one from 7860 on.
        wait: return only when the page is closed.

    Returns:
        Its address.
    """
    guard = Middleware(
        RequestGuard, folder=UPLOADS, uploaded=blocks.upload_file_set, lifetime=SECONDS_IN_MEMORY
    )
    theme = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    _, address, _ = blocks.launch(
        server_port=port, share=False, quiet=True, show_error=False, max_file_size=LARGEST_UPLOAD,
        footer_links=[], css_paths=HERE / "style.css", theme=theme,
        app_kwargs={"middleware": [guard]}, enable_monitoring=False, ssr_mode=False,
        prevent_thread_lock=True, run_history=False,
    )  # fmt: skip
    if wait:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that atexit removes the uploads' folder
        logger.info("the page is at %s; end it with Ctrl-C", address)
        blocks.block_thread()
    return address


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    show_progress(__name__)
    try:
        device = choose_device(options.device)
        reader = open_folder(options.folder, device)
    except UserError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    log_device(device)
    if options.time:
        seconds = latency(reader, options.time)
        logger.info(
            "%.0f ms an image (median of %d; %.0f–%.0f), 1024×1024 PNG to result",
            statistics.median(seconds) * 1e3, len(seconds), min(seconds) * 1e3, max(seconds) * 1e3,
        )  # fmt: skip
        return
    launch(build_page(reader), options.port)


if __name__ == "__main__":
    main()
