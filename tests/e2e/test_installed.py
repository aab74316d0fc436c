"""The wheel in an environment of its own, used from an empty folder as by someone who has no clone."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig

import pandas as pd
import pytest
from loopback_hub import LoopbackHub

from medhiera.__main__ import COMMANDS

pytestmark = pytest.mark.slow

OVERRIDES = json.dumps({"embed_dim": 8, "depths": [1, 1, 1, 1], "decoder_hidden_size": 16, "decoder_depth": 1,
                        "decoder_num_heads": 2})  # fmt: skip
SMALL = [
    "--image_size", "64", "--resize_size", "64", "--model_overrides", OVERRIDES, "--use_cpu", "true",
    "--per_device_train_batch_size", "8", "--max_steps", "2", "--eval_steps", "2", "--save_steps", "2",
]  # fmt: skip

WHERE = """
import importlib.util, json
from medhiera import __version__
from medhiera.experiments.arms import Arm
from medhiera.experiments.runner import ExperimentRunner
from medhiera.hub.provenance import code_commit
from pathlib import Path
import medhiera

names = ("predict", "demo", "configs", "space", "model_cards", "train_mae", "scripts")
runner = ExperimentRunner(Path("runs"), "raw", None, {"train_mae.py": ("configs/mae_smoke.yaml",)})
script = runner.command(Arm("a", "a", "train_mae.py"), 0)[3]
print(json.dumps({
    "version": __version__, "file": medhiera.__file__, "script": script, "commit": code_commit(),
    "generic": [name for name in names if importlib.util.find_spec(name)],
}))
"""

# Several commands in one process, which imports what they share once.
EACH = """
import json, sys
from medhiera.__main__ import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["medhiera", *words]
    main()
"""


class Installation:
    """A fresh environment that sees the pinned packages and has the project's wheel, and an empty folder."""

    def __init__(self, root, folder, hub):
        self.folder, self.bin, self.hub = folder / "empty", folder / "venv" / "bin", hub
        self.folder.mkdir()
        clone = folder / "clone"
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=root, stdout=subprocess.PIPE, check=True
        ).stdout
        for name in listed.decode().rstrip("\0").split("\0"):
            if not name.startswith(("tests/", "docs/", "benchmarks/")) and (root / name).is_file():
                (clone / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, clone / name)
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        offline = ["--no-deps", "--no-index"]
        self.check([*pip, "wheel", *offline, "--no-build-isolation", "-w", str(folder), str(clone)])
        shutil.rmtree(clone)
        self.check([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")])
        [site] = (folder / "venv" / "lib").glob("python*/site-packages")
        (site / "pinned.pth").write_text(sysconfig.get_path("purelib") + "\n")
        [wheel] = folder.glob("*.whl")
        self.check([*pip, "--python", str(self.bin / "python"), "install", *offline, str(wheel)])
        self.site = site
        git = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org"]
        self.check([*git, "init", "-q"])  # as where an environment lies inside another project
        self.check([*git, "commit", "-q", "--allow-empty", "-m", "another project"])

    def check(self, command, **options):
        done = subprocess.run(command, text=True, capture_output=True, timeout=600, **options)
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
        return done

    def run(self, *words):
        """A command in the empty folder; `medhiera` and `python` are the environment's."""
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        environment |= self.hub.environment(str(self.folder.parent / "home")) | {"PYTHONWARNINGS": "ignore"}
        return self.check([str(self.bin / words[0]), *words[1:]], cwd=self.folder, env=environment)

    def launch(self, command, *words):
        launch = ["-m", "accelerate.commands.launch", "--num_processes", "1", "--num_machines", "1"]
        launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--num_cpu_threads_per_process", "1"]
        return self.run("python", *launch, "-m", "medhiera", command, *words, *SMALL)


@pytest.fixture(scope="module")
def installed(root, tmp_path_factory):
    with LoopbackHub() as hub:
        yield Installation(root, tmp_path_factory.mktemp("installed"), hub)


def test_nothing_generic_is_installed_and_all_is_found(installed):
    answer = json.loads(installed.run("python", "-c", WHERE).stdout)
    assert answer["generic"] == [] and answer["commit"] is None
    assert answer["file"].startswith(str(installed.bin.parent))
    assert answer["script"].startswith(str(installed.bin.parent)) and os.path.isfile(answer["script"])
    assert installed.run("medhiera", "--version").stdout == f"medhiera {answer['version']}\n"
    assert "medhiera predict --model" in installed.run("medhiera", "predict", "--help").stdout
    for name in COMMANDS:
        assert f"medhiera {name}" in installed.run("medhiera", name, "--help").stdout
    assert (
        "usage: train_mae.py" in installed.run("python", "-m", "medhiera.scripts.train_mae", "--help").stdout
    )

    [noted] = installed.site.glob("medhiera-*.dist-info/direct_url.json")  # as after pip install git+…
    noted.write_text(
        json.dumps({"url": "https://example.org", "vcs_info": {"vcs": "git", "commit_id": "ab12"}})
    )
    commit = "from medhiera.hub.provenance import code_commit; print(code_commit())"
    assert installed.run("python", "-c", commit).stdout == "ab12\n"


def test_three_stages_and_what_follows_them(installed):
    installed.run("python", "-m", "dataset_scripts.phantom", "raw", "--patients", "60", "--reports", "40",
                  "--image_size", "96")  # fmt: skip
    installed.run("medhiera", "build", "--data_dir", "raw", "--output_dir", "cocktail", "--stored_size", "64",
                  "--num_proc", "2")  # fmt: skip
    data = ("--data_dir", "cocktail", "--build_dir", "built")
    installed.launch("train-mae", "mae_smoke.yaml", *data, "--output_dir", "runs/stage1")
    start = ("--model_name_or_path", "runs/stage1")
    decoder = ("--decoder_layers", "1", "--decoder_width", "16", "--decoder_heads", "2")
    studies = ("--data_dir", "raw", "--build_dir", "built", "--build_num_proc", "2")
    images = sorted((installed.folder / "raw").rglob("*.png"))[:3]
    stage1 = ("--model", "runs/stage1", "--device", "cpu")
    installed.run("python", "-c", EACH, json.dumps([
        ["train-cls", "configs/cls_smoke.yaml", *data, *start, "--output_dir", "runs/stage2", *SMALL],
        ["predict", "--model", "runs/stage2", "--output", "out.csv", "--device", "cpu", *map(str, images)],
        ["train-report", "report_smoke", *studies, "--output_dir", "runs/report", *decoder, *SMALL],
        ["probe", *stage1, *data, "--output_dir", "runs/probe", "--bootstrap_resamples", "20"],
        ["embed", *stage1, "--output", "files.parquet", *map(str, images)],
        ["evaluate", "--model", "runs/stage2", *data, "--output_dir", "runs/scores", "--device", "cpu",
         "--bootstrap_resamples", "20"],
        ["convert", "runs/stage2", "runs/timm", "--to", "timm"],
        ["export", "runs/stage2", "runs/model.onnx"],
        ["publish", "runs/stage2", "tester/tiny"],
    ]))  # fmt: skip
    assert len((installed.folder / "out.csv").read_text().splitlines()) == 1 + len(images)
    for name in ("stage1", "stage2", "report"):
        assert (installed.folder / "runs" / name / "README.md").stat().st_size > 1000
    assert json.loads((installed.folder / "runs" / "probe" / "metrics.json").read_text())["probe_penalty"]
    assert json.loads((installed.folder / "runs" / "scores" / "metrics.json").read_text())["evaluation"]
    assert json.loads((installed.folder / "runs" / "timm" / "config.json").read_text())["architecture"]
    assert (installed.folder / "runs" / "model.onnx").stat().st_size > 10_000
    assert len(pd.read_parquet(installed.folder / "files.parquet")) == len(images)
    published = installed.hub.repositories["tester/tiny"].files
    assert {"README.md", "model.safetensors", "modeling_hiera.py", "sizes.py"} <= published.keys()

    installed.run("python", "-m", "medhiera.space.bundle", "runs/stage2", "space")
    bundled = subprocess.run(
        [sys.executable, "-W", "ignore", "medhiera/space/app.py", "--time", "1", "--device", "cpu"],
        cwd=installed.folder / "space", text=True, capture_output=True, timeout=300,
    )  # fmt: skip
    assert "1024×1024 PNG to result" in bundled.stderr, bundled.stderr[-3000:]
