"""The commands of docs/reports.md in processes of their own, on a few drawn studies and tiny models."""

import json
import os
import subprocess
import sys

from script_runs import run_script
from warm_python import warm_python

from dataset_scripts.phantom.reports import write_phantom_reports

TINY = """
smoke_run: true
image_size: 64
resize_size: 64
model_overrides: {embed_dim: 8, depths: [1, 1, 1, 1]}
decoder_layers: 1
decoder_width: 16
decoder_heads: 2
vocabulary_size: 300
max_tokens: 24
num_beams: 2
optimizer: adamw
encoder_rate: 0.5
learning_rate: 1.0e-3
ema_decay: 0.9
random_crop_scale: 0.8
per_device_train_batch_size: 4
per_device_eval_batch_size: 8
max_steps: 12
eval_strategy: steps
eval_steps: 6
save_strategy: steps
save_steps: 4
logging_steps: 3
load_best_model_at_end: false
bootstrap_resamples: 50
"""

# What a user does who has the folder and stock transformers, and nothing of ours.
STOCK = """
import importlib.util, json, sys
sys.modules["peft"] = None  # nothing is left to melt in
from transformers import pipeline
assert importlib.util.find_spec("modeling_hiera_mae") is None, "this process can see the project"
write = pipeline("image-text-to-text", model=sys.argv[1])
print(json.dumps([write(name, text="")[0]["generated_text"] for name in sys.argv[2:]]))
"""


class ReportWorkshop:
    """Phantom studies, and the scripts run on them in processes of their own."""

    def __init__(self, root, folder, write=write_phantom_reports):
        self.root, self.folder, self.raw = root, folder, folder / "raw"
        write(self.raw, studies=60, image_size=64)
        (folder / "report.yaml").write_text(TINY)

    def command(self, script, output, *words, ranks=1):
        if script != "train_report.py":
            return [warm_python(), script, *words]
        launch = [warm_python(), "-m", "accelerate.commands.launch", "--num_machines", "1"]
        launch += ["--num_processes", str(ranks), "--mixed_precision", "no", "--dynamo_backend", "no"]
        launch += ["--num_cpu_threads_per_process", "1", *(["--multi_gpu"] if ranks > 1 else [])]
        own = [str(self.folder / "report.yaml"), "--data_dir", str(self.raw), "--output_dir", str(output)]
        return [*launch, script, *own, "--build_dir", str(self.folder / "built"), "--use_cpu", "true", *words]

    def run(self, script, output, *words, ranks=1):
        return run_script(self.root, self.command(script, output, *words, ranks=ranks))

    @property
    def pictures(self):
        return sorted(path for path in self.raw.rglob("*") if path.suffix in (".png", ".jpg"))

    def evaluate(self, model, output, *words):
        """Score a folder; what was printed."""
        done = self.run(
            "evaluate_report.py", None, "--model", str(model), "--data_dir", str(self.raw),
            "--build_dir", str(self.folder / "built"), "--output_dir", str(output),
            "--device", "cpu", "--bootstrap_resamples", "50", *words,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return done.stdout

    def train(self, output, *words, ranks=1):
        """A finished folder; what was printed stands beside it."""
        done = self.run("train_report.py", output, *words, ranks=ranks)
        assert done.returncode == 0, done.stdout
        (output / "printed.txt").write_text(done.stdout)
        return output


def stock_reports(folder, pictures, elsewhere):
    """What stock transformers writes of some pictures, offline, in a process that cannot see this project."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", STOCK, str(folder), *map(str, pictures)],
        cwd=elsewhere, env=os.environ | {"HF_HUB_OFFLINE": "1"}, text=True, capture_output=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "UNEXPECTED" not in done.stderr and "MISSING" not in done.stderr
    return json.loads(done.stdout)
