"""What gpu_run.py measured as Markdown: the goals first, then each group of models that took turns.

Stands below gpu_run.py and reads its JSON alone, so it also makes the table anew:

    python -m benchmarks.gpu_report docs/gpu/CARD.json
"""

import json
import re
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.hiera_models import AGREEMENT, TOY

Entry = dict[str, Any]
"""A contender of a group as gpu_run.py writes it; `milliseconds` holds one number a round."""

HEADER = (
    "| model | precision | mode | batch | images/s (slowest–fastest round) | to the first, by round | of the "
    "square product | peak GB | kernels | first step, s |\n|---|---|---|---|---|---|---|---|---|---|"
)
KINDS = {
    "matrix products": "nvjet|gemm|splitk",
    "attention": "attend|flash|fmha|sdpa|dot_do_o|convert_dq",
    "optimizer, weights rounded": "multi_tensor|adam",
    "GELU and what is fused with it": "gelu",
    "layer norms and what is fused with them": "layer_norm|gammabeta",
    "sums (gradients of biases)": "sum|reduce",
    "copies": "memcpy|memset|copy|cat",
}
"""Kinds of kernels by their names; the first that fits."""
LOADER_GOAL = 20_000
LOADER_COLUMN = "both cores"


def is_measured(entry: Entry) -> bool:
    """Whether it has times, and computed what the group's first did."""
    return (
        bool(entry.get("milliseconds"))
        and entry.get("difference", 0) <= AGREEMENT[entry["case"]["precision"]]
    )


def rate(entry: Entry) -> float:
    """Images a second, the median of the rounds."""
    return entry["case"]["batch"] / statistics.median(entry["milliseconds"]) * 1e3


def by_round(entry: Entry, other: Entry) -> list[float]:
    """How many times as many images a second as the other in the same round, sorted."""
    own, others = ([ms / one["case"]["batch"] for ms in one["milliseconds"]] for one in (entry, other))
    return sorted(theirs / mine for theirs, mine in zip(others, own, strict=True))


def spread(values: Sequence[float], places: int = 2) -> str:
    """The median with the lowest and the highest."""
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{places}f} ({low:.{places}f}–{high:.{places}f})"


def share_of_products(entry: Entry, rates: dict[str, float]) -> float:
    """Matrix products of the model's own step a second, of the rate of a square product of the same type."""
    precision = entry["case"]["precision"]
    kind = precision if precision in rates else "bf16"
    return rate(entry) * entry["gflop"] / (rates[kind] * 1e3)


def pick(
    entries: Iterable[Entry], name: str, *, is_eager: bool | None = None, precision: str = ""
) -> Entry | None:
    """The fastest of a library's that fit, or None."""
    fitting = [
        entry
        for entry in entries
        if entry["name"] == name
        and is_measured(entry)
        and is_eager in (None, entry["case"]["mode"] == "eager")
        and precision in ("", entry["case"]["precision"])
    ]
    return max(fitting, key=rate, default=None)


def model_goals(content: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The goals that models are compared by: what, wanted, measured; ratios are of one group's rounds."""
    groups = {group["key"]: group["contenders"] for group in content["groups"]}
    train, infer = groups.get("train", []), groups.get("infer", [])
    half = pick(train, "ours", is_eager=False, precision="bf16_weights")
    fastest, fast = pick(train, "ours"), pick(train, "ours", is_eager=False)
    pairs = [
        ("bf16 weights, compiled, to hiera-optim at its best", "≥ 1.10, stretch 1.25",
         half, pick(train, "hiera-optim")),
        ("eager, to hiera-optim eager", "≥ 1.20",
         pick(train, "ours", is_eager=True), pick(train, "hiera-optim", is_eager=True)),
        ("compiled, to Meta's eager", "≥ 2.4", fast, pick(train, "meta", is_eager=True)),
        ("classifier, bf16 compiled, to timm's", "≥ 1.05",
         pick(infer, "ours", is_eager=False), pick(infer, "timm", is_eager=False)),
    ]  # fmt: skip
    rows = []
    for what, wanted, own, peer in pairs:
        measured = "not measured" if own is None or peer is None else spread(by_round(own, peer))
        rows.append((what, wanted, measured))
    share = "not measured"
    if fastest is not None:
        share = f"{share_of_products(fastest, content['square_tflops']):.1%}"
    rows.insert(3, ("products of our step, of a square bf16 product's rate", "≥ 20 %, stretch 33 %", share))
    return rows


def goals(content: dict[str, Any]) -> list[tuple[str, str, str]]:
    """All goals: what, wanted, measured."""
    rows = model_goals(content)
    trainer = (content.get("trainer") or {}).get("images_per_second")
    measured = "not measured"
    if trainer:
        measured = spread([ours / bare for bare, ours in trainer])
    rows.append(("`accelerate launch`, modern recipe, of the bare compiled step", "≥ 0.90", measured))
    for recipe in ("mae_modern", "cls_modern"):
        column = (content.get("loader") or {}).get(f"{recipe}, ours, raw", {}).get(LOADER_COLUMN)
        measured = spread(column, 0) if column else "not measured"
        rows.append((f"loader, {recipe}, images/s a core", f"≥ {LOADER_GOAL:,}", measured))
    return rows


def group_lines(group: dict[str, Any], rates: dict[str, float]) -> list[str]:
    """A group's table; what failed stands below it."""
    first = group["contenders"][0]["case"]
    lines = [f"\n## {group['title']}: Hiera-{first['size']}, {first['pixels']} pixels\n", HEADER]
    entries = [entry for entry in group["contenders"] if is_measured(entry)]
    for entry in entries:
        case = entry["case"]
        rates_of_rounds = [case["batch"] / ms * 1e3 for ms in entry["milliseconds"]]
        memory = "–" if entry["memory_gb"] is None else f"{entry['memory_gb']:.1f}"
        kernels = "–" if entry["kernels"] is None else f"{entry['kernels']:,}"
        mode = case["mode"] + (", cuDNN's attention" if case.get("graphs_cudnn") else "")
        # Measured alone after the others, it has no round in common with them.
        ratio = "–" if entry.get("is_alone") else spread(by_round(entry, entries[0]))
        lines.append(
            f"| {entry['name']} | {case['precision']} | {mode} | {case['batch']} "
            f"| {spread(rates_of_rounds, 0)} | {ratio} | {share_of_products(entry, rates):.1%} "
            f"| {memory} | {kernels} | {entry['first_seconds']:.0f} |"
        )
    for entry in group["contenders"]:
        if not is_measured(entry):
            why = (
                entry.get("fault")
                or f"computes something else: relative difference {entry['difference']:.1e}"
            )
            lines.append(f"\n{entry['label']}: {why}")
    return lines


def kind_lines(entry: Entry) -> list[str]:
    """Where the time of one step goes, by kind of kernel."""
    times = dict.fromkeys([*KINDS, "other, the rarest kernels and gaps"], 0.0)
    for name, _, microseconds in entry["kernel_times"]:
        kind = next((kind for kind, words in KINDS.items() if re.search(words, name.lower())), None)
        if kind is not None:
            times[kind] += microseconds / 1e3
    whole = statistics.median(entry["milliseconds"])
    times["other, the rarest kernels and gaps"] = whole - sum(times.values())
    case = entry["case"]
    lines = [
        f"\n## Where the step of {entry['name']} goes ({case['precision']}, {case['mode']})\n",
        "| kernels | ms | share |\n|---|---|---|",
    ]
    ordered = sorted(times.items(), key=lambda pair: -pair[1])
    lines += [f"| {kind} | {time:.1f} | {time / whole:.0%} |" for kind, time in ordered]
    return [*lines, f"| step | {whole:.1f} | |"]


def render(content: dict[str, Any]) -> str:
    """The whole page."""
    machine = content["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    squares = ", ".join(f"{name} {value:.1f}" for name, value in content["square_tflops"].items())
    lines = [
        f"# {machine['name']}\n",
        f"{versions}. `{content['command']}`, {content['seconds']:.0f} s. Rates of a square product in "
        f"TFLOP/s: {squares}. The models of a group have a process each and take turns; a training step "
        "ends with fused AdamW.\n",
    ]
    cases = [entry["case"] for group in content["groups"] for entry in group["contenders"]]
    if cases and cases[0]["size"] == TOY:
        lines.append(
            "A trial of the benchmark at a toy's size: none of its figures says anything of a card.\n"
        )
    lines.append("| goal (models at batch 128) | wanted | measured |\n|---|---|---|")
    lines += [f"| {what} | {wanted} | {measured} |" for what, wanted, measured in goals(content)]
    for group in content["groups"]:
        lines += group_lines(group, content["square_tflops"])
    for group in content["groups"]:
        fastest = pick(group["contenders"], "ours")
        if group["key"] == "train" and fastest is not None and fastest.get("kernel_times"):
            lines += kind_lines(fastest)
    if content["left_out"]:
        lines.append("\n## Left out\n")
        lines += [f"- {what}: {why}" for what, why in content["left_out"]]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the table beside the JSON."""
    file = Path(sys.argv[1])
    content = json.loads(file.read_text(encoding="utf-8"))
    file.with_suffix(".md").write_text(render(content), encoding="utf-8")


if __name__ == "__main__":
    main()
