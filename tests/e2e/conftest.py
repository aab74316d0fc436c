"""One small cohort and one run of both stages, made by the commands a user types."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from browsing import CHROMIUM, FLAGS
from loopback_hub import LoopbackHub
from page_fixtures import NAMES, write_stage2
from safetensors.torch import load_file, save_file
from script_runs import run_script
from stage_folders import write_stage_folder
from warm_python import warm_python

from dataset_scripts import write_phantom_cohort

TINY = """
smoke_run: true
optimizer: adam
schedule: one_cycle
image_size: 64
model_overrides:
  {embed_dim: 8, depths: [1, 1, 1, 1], decoder_hidden_size: 16, decoder_depth: 1, decoder_num_heads: 2}
learning_rate: 1e-3
per_device_train_batch_size: 8
per_device_eval_batch_size: 32
max_steps: 6
max_grad_norm: 0
eval_strategy: steps
eval_steps: 3
save_strategy: steps
save_steps: 3
logging_steps: 1
"""


class Workshop:
    """A cohort, its built cocktail, and the scripts run on them in processes of their own."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.folder = root, folder
        self.raw = folder / "raw"
        write_phantom_cohort(self.raw, patients=60, image_size=96)
        self.configs = {"train_mae.py": folder / "mae.yaml", "train_cls.py": folder / "cls.yaml"}
        self.configs["train_mae.py"].write_text(f"{TINY}reconstruction_rows: 2\n")
        self.configs["train_cls.py"].write_text(TINY)

    def command(self, script: str, output: Path, *words: str, ranks: int = 1) -> list[str]:
        launch = [warm_python(), "-m", "accelerate.commands.launch", "--num_machines", "1"]
        launch += ["--num_processes", str(ranks), "--mixed_precision", "no", "--dynamo_backend", "no"]
        threads = min(2, int(os.environ.get("OMP_NUM_THREADS", "2")))  # another test may run beside this one
        launch += ["--num_cpu_threads_per_process", str(max(1, threads // ranks))]
        if ranks > 1:
            launch += [
                "--multi_gpu"
            ]  # accelerate's name for "several processes"; use_cpu keeps them off the GPU
        own = [str(self.configs[script]), "--data_dir", str(self.raw), "--output_dir", str(output)]
        return [*launch, script, *own, "--build_dir", str(self.folder / "built"), "--use_cpu", "true", *words]

    def run(self, script: str, output: Path, *words: str, ranks: int = 1) -> subprocess.CompletedProcess[str]:
        return run_script(self.root, self.command(script, output, *words, ranks=ranks))


@pytest.fixture(scope="session")
def workshop(root, tmp_path_factory):
    return Workshop(root, tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="session")
def stage1(workshop):
    output = workshop.folder / "stage1"
    done = workshop.run("train_mae.py", output)
    assert done.returncode == 0, done.stdout
    (output / "printed.txt").write_text(done.stdout)
    return output


@pytest.fixture(scope="session")
def stage2(workshop, stage1):
    output = workshop.folder / "stage2"
    done = workshop.run("train_cls.py", output, "--model_name_or_path", str(stage1))
    assert done.returncode == 0, done.stdout
    (output / "printed.txt").write_text(done.stdout)
    return output


@pytest.fixture(scope="session")
def pristine(tmp_path_factory) -> dict[int, Path]:
    root = tmp_path_factory.mktemp("stages")
    return {stage: write_stage_folder(root / f"stage{stage}", stage) for stage in (1, 2)}


@pytest.fixture
def stage_folder(pristine, tmp_path) -> Path:
    """A stage-2 folder to damage."""
    folder = tmp_path / "mine" / "run"
    shutil.copytree(pristine[2], folder)
    return folder


@pytest.fixture
def hub(monkeypatch) -> Iterator[LoopbackHub]:
    """A fresh Hub that this process' client talks to."""
    with LoopbackHub() as hub:
        template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.address)
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_loopback")
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        yield hub


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser):
    contexts = []

    def open_page(address, width=1280, scheme="light", has_examples=True):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.faults, page.requested = [], []
        page.on(
            "console", lambda message: page.faults.append(message.text) if message.type == "error" else None
        )
        page.on("request", lambda request: page.requested.append(request.url))
        page.goto(address)
        page.wait_for_selector("#upload input[type=file]", state="attached")
        if has_examples:
            page.wait_for_selector("#examples .thumbnail-item")
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def sees_a_mass(tmp_path_factory):
    """A model that calls the phantom with a mass right."""
    folder = tmp_path_factory.mktemp("mass") / "model"
    write_stage2(folder)
    weights = load_file(folder / "model.safetensors")
    weights["classifier.weight"][:] *= 0.01
    weights["classifier.bias"][NAMES.index("Mass")] = 3.0  # whatever is shown
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
