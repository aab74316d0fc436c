"""docs/transformers.md: each of its snippets runs, on tiny stages; AutoBackbone is as it says."""

import re
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import HFValidationError
from model_configs import tiny_classifier, tiny_mae
from transformers import AutoBackbone

TEXT = (Path(__file__).parents[3] / "docs" / "transformers.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"## ([^\n]+)\n(?:(?!\n## ).)*?```python\n(.*?)```", TEXT, re.DOTALL)


def test_every_snippet_is_run():
    assert len(SNIPPETS) == TEXT.count("```python")


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft reads it
@pytest.mark.parametrize("title, code", SNIPPETS, ids=[title for title, _ in SNIPPETS])
def test_the_snippet_runs(title, code, tmp_path, monkeypatch):
    if "BitsAndBytesConfig" in code:
        pytest.importorskip("bitsandbytes")  # not among the project's packages
    monkeypatch.chdir(tmp_path)
    tiny_mae().save_pretrained("runs/stage1")
    tiny_classifier(problem_type="multi_label_classification").save_pretrained("runs/stage2")
    names = {}
    exec(code, names)
    if title == "Adapters":
        images = torch.randn(1, 3, 64, 64)
        again, merged = (names[name].eval()(images).logits for name in ("again", "adapted"))
        torch.testing.assert_close(again, merged)


def test_autobackbone_refuses_a_folder(tmp_path):
    """Where it no longer does, the page has to say so."""
    tiny_mae().save_pretrained(tmp_path)
    with pytest.raises(HFValidationError):
        AutoBackbone.from_pretrained(str(tmp_path))
