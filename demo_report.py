"""Reports in one command: synthetic studies → a model that writes → its card → a report by stock.

    python demo_report.py

Each step is the command a user would type, in demo/report. What a former run finished is reused. The model
must beat the best constant report and be right about sides; the summary says whether it does.
"""

# ruff: noqa: E402  (the parser stands above what takes seconds to import)

from medhiera.command_line import new_parser, show_progress

if __name__ == "__main__":  # --help and mistyped options are answered now
    new_parser(__doc__).parse_args()

import os
import subprocess
import sys
import time
from pathlib import Path

from dataset_scripts import write_phantom_reports
from medhiera.demo_stages import Demo, ask_stock, how_it_ended, say, shown
from medhiera.errors import run_script
from medhiera.evaluation.report_results import ReportEvaluation
from medhiera.evaluation.report_tables import report_lines
from medhiera.hub.record import ReportRecord, read_record
from medhiera.output import make_folder, one_writer

STUDIES, IMAGE_SIZE = 3000, 96

STOCK_CHECK = """
import sys
from transformers import pipeline
write = pipeline("image-text-to-text", model=sys.argv[1])
print(write(sys.argv[2], text="")[0]["generated_text"])
"""


def main(argv: list[str]) -> None:
    """Run the demo in its folder, where no other one runs, and print its summary."""
    new_parser(__doc__).parse_args(argv)
    show_progress()
    folder = Path.cwd() / "demo" / "report"
    make_folder(folder, "the demo:")
    with one_writer(folder / "summary.txt", "the demo:"):
        run_demo(folder)


def run_demo(folder: Path) -> None:
    """Draw the studies, train, let stock transformers write, print the summary."""
    started = time.monotonic()
    demo = Demo(folder, folder / "raw")
    say(f"phantom studies: {STUDIES} synthetic radiographs with reports of what is drawn")
    write_phantom_reports(demo.data, studies=STUDIES, image_size=IMAGE_SIZE)
    output, _ = demo.stage(2, "train_report.py", "report_smoke.yaml", None, f"{STUDIES}")
    record = read_record(output)
    assert isinstance(record, ReportRecord), "train_report.py writes this record"
    say("a new process, stock transformers, none of this project: one picture")
    picture = next(iter(sorted(demo.data.rglob("*.png"))))
    lines = ["", "══ summary " + "═" * 60, "", *report_lines(record.evaluation), ""]
    lines += [verdict(record.evaluation), "", f"stock transformers on {picture.name}:"]
    lines += [
        f"  {ask_stock(STOCK_CHECK, str(output), str(picture))}",
        "",
        f"the card: {shown(output / 'README.md')}",
    ]
    lines += [f"in all {time.monotonic() - started:.0f} s on {os.cpu_count()} CPU cores", ""]
    text = "\n".join(lines)
    (folder / "summary.txt").write_text(text, encoding="utf-8")
    print(text)


def verdict(evaluation: ReportEvaluation) -> str:
    """Whether the model sees: better than one constant report, and four of five sides that it names right."""
    gain = evaluation.above_constant["cider"]
    sides = evaluation.written.laterality
    share = sides.share_written_correct or 0.0
    return (
        f"CIDEr-D {'is' if gain.is_shown_above else 'IS NOT'} above the best constant report's\n"
        f"{sides.written} reports name a side, {100 * share:.0f} % of them the right one"
        + ("" if share >= 0.8 else ": FEWER than four of five")
    )


if __name__ == "__main__":
    try:
        run_script(main, "what is finished is kept: repeat the command")
    except subprocess.CalledProcessError as error:
        sys.exit(f"demo_report.py: {how_it_ended(error.returncode)}")
