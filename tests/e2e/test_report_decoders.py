"""Reports of MIMIC-CXR, and by a language model with LoRA: from raw pictures to a folder that stock opens."""

import csv
import json
import os
import subprocess
import sys

import pytest
from killed_runs import kill_after_checkpoint, logged, weights
from mini_mimic import write_phantom_mimic
from report_workshop import ReportWorkshop, stock_reports
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from medhiera.hub.model_card import card_of
from medhiera.hub.publish import publish_stage
from medhiera.hub.record import read_record

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning"),
]

END = "<|endoftext|>"

# A user's own code: the stock class, and what it generates.
STOCK_CLASS = """
import importlib.util, json, sys
sys.modules["peft"] = None
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer
assert importlib.util.find_spec("modeling_hiera_mae") is None, "this process can see the project"
folder, *pictures = sys.argv[1:]
model, info = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
assert not any(info.values()), info
processor, tokenizer = (kind.from_pretrained(folder) for kind in (AutoImageProcessor, AutoTokenizer))
views = [Image.open(name).convert("RGB") for name in pictures]
tokens = model.generate(**processor(views, return_tensors="pt"))
print(json.dumps([type(model).__name__, *tokenizer.batch_decode(tokens, skip_special_tokens=True)]))
"""


@pytest.fixture(scope="module")
def studio(root, tmp_path_factory):
    return ReportWorkshop(root, tmp_path_factory.mktemp("decoders"))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """A language model as the Hub has GPT-2: byte-level tokens, one special token, head tied to embedding."""
    folder = tmp_path_factory.mktemp("gpt2")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(
        ["There is a small left pleural effusion.", "The lungs are clear."], trainer
    )
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END, eos_token=END, unk_token=END)
    wrapped.save_pretrained(folder)
    size = {"n_positions": 64, "n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": len(wrapped)}
    GPT2LMHeadModel(GPT2Config(**size, bos_token_id=0, eos_token_id=0)).save_pretrained(folder)
    return folder


def test_mimic_from_its_layout_to_a_folder_that_stock_opens(root, tmp_path):
    studio = ReportWorkshop(root, tmp_path, write_phantom_mimic)
    folder = studio.train(tmp_path / "report")
    record = read_record(folder)
    assert set(record.data.trained_on) == {"MIMIC-CXR"} and not record.is_phantom
    evaluation = record.evaluation
    assert evaluation.clean == "mimic"  # by where the reports are from; the recipe names no rules
    assert evaluation.written.scores.studies == 10  # 12 of the 60 are of the test split; two have no findings
    assert evaluation.examples == [] and {one.report for one in evaluation.constants} == {None}
    card = (folder / "README.md").read_text()
    assert card == card_of(folder) and "all texts cleaned as R2Gen cleans MIMIC" in card
    assert "MIMIC-CXR" in card and "effusion" not in card.lower()
    with (folder / "reports.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all("  " not in row["reference"] and "FINDINGS" not in row["reference"] for row in rows)
    pictures = studio.pictures[:3]
    predicted = tmp_path / "reports.csv"
    done = studio.run("predict.py", None, "--model", str(folder), "--output", str(predicted),
                      "--device", "cpu", "--batch_size", "1", *map(str, pictures))  # fmt: skip
    assert done.returncode == 0, done.stdout
    with predicted.open(newline="") as file:
        ours = [row["report"] for row in csv.DictReader(file)]
    assert [text.strip() for text in stock_reports(folder, pictures, tmp_path)] == ours


def test_a_language_model_with_lora_becomes_a_stock_folder(hub, studio, gpt2, tmp_path):
    words = ["--decoder_name_or_path", str(gpt2), "--lora_rank", "2", "--load_best_model_at_end", "true",
             "--save_steps", "6", "--views", "1", "--learning_rate", "0.01", "--max_steps", "18"]  # fmt: skip
    folder = studio.train(tmp_path / "whole", *words)
    record = read_record(folder)
    assert record.decoder == gpt2.name and record.recipe["lora_rank"] == 2
    assert record.lineage.new_weights == "all" or "cross-attention" in record.lineage.new_weights
    assert "parameters are trained" in (folder / "printed.txt").read_text()
    found, base = weights(folder), weights(gpt2)
    assert not any("lora" in name for name in found)
    attention = "transformer.h.0.attn.c_attn.weight"
    assert (found[f"decoder.{attention}"] != base[attention]).any()  # what was learned is melted in
    assert (found["decoder.transformer.wte.weight"] == base["transformer.wte.weight"]).all()  # frozen
    assert str(gpt2.parent) not in "".join(
        (folder / name).read_text() for name in ("config.json", "metrics.json", "README.md")
    )

    pictures = [str(path) for path in studio.pictures[:3]]
    answers = stock_reports(folder, pictures, tmp_path)
    done = subprocess.run(
        [sys.executable, "-I", "-c", STOCK_CLASS, str(folder), *pictures],
        cwd=tmp_path, env=os.environ | {"HF_HUB_OFFLINE": "1"}, text=True, capture_output=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    name, *texts = json.loads(done.stdout)
    assert name == "VisionEncoderDecoderModel" and texts == answers

    studio.evaluate(folder, tmp_path / "scored")  # melted in, it writes what the trained one wrote
    assert (tmp_path / "scored" / "reports.csv").read_text() == (folder / "reports.csv").read_text()
    publish_stage(folder, "tester/lora", stage=2)
    assert not any(name.endswith((".py", ".csv")) for name in hub.repositories["tester/lora"].files)

    killed = tmp_path / "killed"
    kill_after_checkpoint(studio, "train_report.py", killed, *words, step=6)
    kept = (gpt2 / "tokenizer.json").read_text()
    edited = json.loads(kept)
    edited["model"]["merges"].pop(0)  # the same tokens, and others of them for a report
    (gpt2 / "tokenizer.json").write_text(json.dumps(edited))
    refused = studio.run("train_report.py", killed, *words, "--resume_from_checkpoint", "true")
    assert refused.returncode and "digest of the training reports' tokens was" in refused.stdout
    (gpt2 / "tokenizer.json").write_text(kept)
    studio.train(killed, *words, "--resume_from_checkpoint", "true")
    resumed = weights(killed)
    assert resumed.keys() == found.keys()
    assert all((resumed[name] == value).all() for name, value in found.items())
    assert logged(killed) == logged(folder)
