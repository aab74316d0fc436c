"""The tables and figures of the small real experiment, from what is finished."""

import re
from dataclasses import replace

import pytest
from matplotlib import image
from matplotlib import pyplot as plt
from small_runs import RATES, finish, finish_probe, laboratory

from benchmarks.small_differences import differences, forest, probe_differences
from benchmarks.small_laboratory import is_done
from benchmarks.small_plan import (
    COCKTAIL,
    FULL,
    KERMANY,
    PRETRAININGS,
    RANDOM,
    RESNET18,
    SMOKE,
    Work,
    classifier_arm,
)
from benchmarks.small_reached import read_results
from benchmarks.small_report import DIFFERENCES, FIGURE, report
from medhiera.evaluation.bootstrap import Bootstrap
from medhiera.experiments.report import difference_cells


@pytest.fixture
def lab(tmp_path):
    everything, part = SMOKE.shares
    return laboratory(tmp_path, replace(FULL, shares=(replace(everything, seeds=4), part)))


def row_of(text, one, other):
    """The cells of a difference in AUROC, from the difference on."""
    [line] = [line for line in text.splitlines() if f"{one} − {other} | AUROC" in line]
    return [cell.strip() for cell in line.split("| AUROC |")[1].strip(" |").split("|")]


def ends(cell):
    return [float(number) for number in re.findall(r"[+-]\d\.\d+", cell)[-2:]]


def test_what_is_finished_is_known_and_the_report_says_what_is_not(lab, tmp_path):
    everything, part = lab.budget.shares
    assert lab.reached(RANDOM, everything) == {} and lab.chosen(RANDOM, everything) is None
    finish(lab, RANDOM, everything, (0.4, 0.5, 0.6, 0.5), best=RATES[0])
    finish(lab, COCKTAIL, everything, (7.0, 8.0, 7.0, 8.0))
    assert lab.chosen(COCKTAIL, everything).name == classifier_arm(COCKTAIL, everything, RATES[2]).name
    assert is_done(lab, Work(contestant=RANDOM, share=everything))
    assert not is_done(lab, Work(contestant=RANDOM, share=part))
    assert not is_done(lab, Work(PRETRAININGS["leak"]))

    text = report(lab, 1.5, Bootstrap(50))
    assert text.startswith("1.5 CPU hours used.") and "**Unfinished.** Still to run: pre-training" in text
    assert "Hiera, random weights, 50 % of the labels" in text
    [row] = [line for line in text.splitlines() if line.startswith(f"| 100 % | {COCKTAIL.label} | 0.001 |")]
    assert row.count("|") == 14
    assert row_of(text, COCKTAIL.label, RANDOM.label)[-1] == "better"
    assert (tmp_path / FIGURE).is_file() and (tmp_path / "report.md").read_text() == text
    ended = "; the best lies at the grid's end |"
    [swept] = [line for line in text.splitlines() if line.endswith(ended)]
    assert swept.startswith(f"| 100 % | {RANDOM.label} | 0.0001: ")


def test_a_difference_is_decided_where_both_intervals_are(lab):
    """Better, worse, and undecided where the seeds disagree."""
    everything = lab.budget.shares[0]
    finish(lab, RANDOM, everything, (0.4, 0.5, 0.6, 0.5))
    finish(lab, COCKTAIL, everything, (7.0, 8.0, 7.0, 8.0))
    finish(lab, RESNET18, everything, (0.5, 9.0, 0.5, 9.0))
    finish(lab, KERMANY, everything, (0.5, 0.4, 0.5, 0.6))
    text = report(lab, 1.5, Bootstrap(200))
    rows = {
        pair: row_of(text, *(each.label for each in pair))
        for pair in ((COCKTAIL, RANDOM), (KERMANY, RANDOM), (COCKTAIL, RESNET18), (RANDOM, RESNET18))
    }
    assert rows[COCKTAIL, RANDOM][2] == "better" and min(ends(rows[COCKTAIL, RANDOM][0])) > 0
    low, high = ends(rows[RANDOM, RESNET18][0])
    assert low < 0 < high and max(ends(rows[RANDOM, RESNET18][1])) < 0  # the patients would decide it
    assert rows[RANDOM, RESNET18][2] == rows[KERMANY, RANDOM][2] == "undecided"


def test_two_intervals_on_opposite_sides_of_zero_decide_nothing():
    seeds = [0.10, 0.11, 0.12]
    assert difference_cells(seeds, (0.05, 0.2)).endswith("| better")
    assert difference_cells([-one for one in seeds], (-0.2, -0.05)).endswith("| worse")
    assert difference_cells(seeds, (-0.2, -0.05)).endswith("| undecided")
    assert difference_cells(seeds, (0.05, 0.2), has_few_cases=True).endswith("| too few patients")


def test_probes_are_compared_and_what_fine_tuning_adds(lab):
    everything = lab.budget.shares[0]
    finish(lab, COCKTAIL, everything, (2.5, 4.0, 2.5, 4.0))
    for name, skill in (("cocktail", 0.5), ("kermany", 8.0), ("teacher", 0.5)):
        finish_probe(lab, name, skill)
    text = report(lab, 1.5, Bootstrap(200))
    assert "Each pre-training was run once" in text and "the only view of how the pre-trainings vary" in text
    against = row_of(text, "probe, pre-trained on the cocktail", "probe, pre-trained on Kermany alone")
    assert against[1] == "–" and float(against[0]) < 0 and max(ends(against[2])) < 0
    same = row_of(text, "probe, pre-trained on the cocktail", "probe, the ImageNet teacher")
    assert same == ["+0.0000", "–", "–"]  # the same in every resample: no interval
    tuned = row_of(text, COCKTAIL.label, "its own probe")
    assert float(tuned[0]) > 0 and ends(tuned[1])[1] > ends(tuned[1])[0] and min(ends(tuned[2])) > 0
    found = probe_differences(lab, read_results(lab), Bootstrap(50))
    assert [each.short for each in found] == [  # neither the leak's nor the features' are there, nor random's
        "pre-trained on the cocktail − pre-trained on Kermany alone",
        "pre-trained on the cocktail − the ImageNet teacher",
        "pre-trained on the cocktail, fine-tuned − probe",
    ]


def test_the_figure_has_a_row_for_each_difference_and_a_zero_line(lab, tmp_path, monkeypatch):
    everything = lab.budget.shares[0]
    for contestant, skill in ((RANDOM, 0.5), (COCKTAIL, 3.0), (KERMANY, 2.0)):
        finish(lab, contestant, everything, (skill, skill + 0.5, skill, skill + 0.5))
    finish_probe(lab, "cocktail", 1.0)
    report(lab, 1.5, Bootstrap(50))
    assert image.imread(tmp_path / DIFFERENCES).std() > 0

    drawn = []
    monkeypatch.setattr("benchmarks.small_differences.save", lambda figure, path: drawn.append(figure))
    results = read_results(lab)
    found = differences(lab, results, Bootstrap(50)) + probe_differences(lab, results, Bootstrap(50))
    forest(found, tmp_path / "again.png")
    [axis] = drawn[0].axes
    labels = [tick.get_text() for tick in axis.get_yticklabels()]
    assert labels == [each.short for each in found] and len(labels) == 4
    assert labels[0] == "pre-trained on the cocktail − random weights"
    points = {line.get_ydata()[0]: line.get_xdata()[0] for line in axis.lines if line.get_marker() == "o"}
    means = [sum(each.values["mean_auroc"]) / 4 for each in found]
    assert [points[place] for place in axis.get_yticks()] == pytest.approx(means)
    assert any(list(line.get_xdata()) == [0, 0] for line in axis.lines)
    words = {text.get_text() for text in axis.texts}
    assert words == {"fine-tuned on 100 % of the labels", "what fine-tuning adds, all labels"}
    plt.close(drawn[0])


def test_no_figure_is_drawn_of_nothing(lab, tmp_path):
    forest([], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
