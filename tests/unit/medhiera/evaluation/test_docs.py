"""The example of docs/evaluation.md runs and prints an AUROC."""

import contextlib
import io
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]


def test_the_example_runs():
    text = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    assert float(printed.getvalue()) == 1.0
