"""One command for all of the project: `medhiera predict …` is `python predict.py …` of a clone.

    medhiera                                  what there is
    medhiera train-mae --help
    accelerate launch -m medhiera train-mae mae_paper.yaml --data_dir DATA --output_dir runs/stage1
    python -m medhiera predict --model runs/stage2 --output predictions.csv chest.png

A sub-command is a script or a module that runs by itself too; its own parser reads what follows its name.
Nothing but that one is imported, so the list and every --help are there at once.
"""

import runpy
import sys

from dataset_scripts.mistyped import did_you_mean
from medhiera import __version__, command_line
from medhiera.shipped_files import RECIPES, script

COMMANDS = {
    "train-mae": ("train_mae.py", "stage 1: pre-train a masked autoencoder on images"),
    "train-cls": ("train_cls.py", "stage 2: train a classifier of findings"),
    "train-report": ("train_report.py", "stage 2: train a model that writes reports"),
    "evaluate": ("evaluate_cls.py", "score a classifier on one split, with intervals"),
    "evaluate-report": ("evaluate_report.py", "score a model that writes reports"),
    "embed": ("embed.py", "features of your own images or a dataset, as Parquet"),
    "probe": ("probe.py", "score a linear probe of a model's frozen encoder"),
    "predict": ("predict.py", "probabilities or reports of your own images, as a CSV"),
    "build": ("dataset_scripts", "raw folders of images → one dataset, here or on the Hub"),
    "leakage": ("dataset_scripts.leakage", "which images of one set stand in another"),
    "convert": ("modeling_hiera_mae.convert", "checkpoints of other libraries → a folder of transformers"),
    "export": ("medhiera.inference.onnx_export", "a classifier → one ONNX file"),
    "publish": ("medhiera.hub.publish", "a finished stage's folder → the Hub"),
    "app": ("medhiera.space.app", "a page to try a stage's folder on"),
    "demo": ("demo.py", "the three stages on synthetic radiographs"),
    "demo-report": ("demo_report.py", "a model that writes reports, on synthetic studies"),
    "reproduce": ("reproduce.py", "the paper's experiments"),
}
"""Name → the script or module behind it, and what it does."""


def overview() -> str:
    """What `medhiera` without a command prints."""
    lines = [f"  {name:<15} {purpose}" for name, (_, purpose) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: medhiera COMMAND …    (medhiera COMMAND --help: its options)",
            "",
            "Hiera masked autoencoders for radiology. Not for clinical use.",
            "",
            *lines,
            "",
            f"medhiera {__version__}; the recipes that train-… takes by name lie in {RECIPES}",
        ]
    )


def main() -> None:
    """Run the command that the command line names, as if its file had been started."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print(overview())
        return
    if name == "--version":
        print(f"medhiera {__version__}")
        return
    if name not in COMMANDS:
        near = did_you_mean(name, COMMANDS) or ";"
        sys.exit(f"medhiera: no command {name!r}{near} wanted one of {', '.join(COMMANDS)}")
    target = COMMANDS[name][0]
    started_as = command_line.started_as = f"medhiera {name}"
    command_line.started_from = target if target.endswith(".py") else f"-m {target}"
    del sys.argv[1]
    if target.endswith(".py"):
        runpy.run_path(script(target), run_name="__main__")
    else:  # as a global too: the ground floor does not import medhiera
        runpy.run_module(target, init_globals={"started_as": started_as}, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
