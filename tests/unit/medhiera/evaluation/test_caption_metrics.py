"""The measures of reports beside pycocoevalcap's numbers, beside sacrebleu's, and under weights."""

import random

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU

from medhiera.evaluation.caption_metrics import (
    BLEU_NAMES,
    MEASURES,
    measure_captions,
    meteor,
    rouge_l,
    why_no_meteor,
)

REFERENCES = [
    "the heart is normal in size . the lungs are clear . no pleural effusion .",
    "there is a large right pleural effusion . the heart is enlarged .",
    "the lungs are clear . no pneumothorax or pleural effusion .",
    "the lungs are clear . no pneumothorax or pleural effusion .",
    "a small left apical pneumothorax is present . the lungs are otherwise clear .",
    "degenerative changes of the thoracic spine .",
]
PREDICTIONS = [
    "the heart is normal in size . the lungs are clear . the lungs are clear .",
    "there is a small left pleural effusion . heart is enlarged .",
    "the lungs are clear . no pneumothorax or pleural effusion .",
    "no pleural effusion or pneumothorax . the heart is normal in size and the mediastinum is unremarkable .",
    "clear",
    "",
]

# What pycocoevalcap 1.2 prints for these six, METEOR with Java 17.
COCO_BLEU = [0.5846883485089533, 0.5019013184130989, 0.4530027447276893, 0.4133151192686775]
COCO_ROUGE = [0.7922077922077921, 0.7942708333333333, 1.0, 0.28841607565011823, 0.11531190926275992, 0.0]
COCO_CIDER = [7.53860808365298, 3.975866256887446, 10.0, 0.3797447635576813, 0.02240966201209151, 0.0]
COCO_METEOR = 0.30283959269294386


def write_reports(count, seed):
    """Reports of shuffled sentences, some with a word exchanged or a sentence twice."""
    generator = random.Random(seed)
    sentences = [sentence.strip() for text in REFERENCES for sentence in text.split(".") if sentence.strip()]
    words = sorted({word for sentence in sentences for word in sentence.split()})
    reports = []
    for _ in range(count):
        chosen = generator.choices(sentences, k=generator.randint(1, 5))
        report = " . ".join(chosen).split()
        if generator.random() < 0.5:
            report[generator.randrange(len(report))] = generator.choice(words)
        reports.append(" ".join([*report, "."]))
    return reports


def test_numbers_are_those_of_pycocoevalcap():
    statistics = measure_captions(REFERENCES, PREDICTIONS)
    values = statistics.values()
    # coco-caption adds 1e-15 to matches and 1e-9 to counts, which shows in so few words.
    assert [values[name] for name in BLEU_NAMES] == pytest.approx(COCO_BLEU, abs=1e-10)
    assert statistics.rouge_l.tolist() == COCO_ROUGE
    assert statistics.cider.tolist() == COCO_CIDER
    assert values["rouge_l"] == 0.4983677684090006
    assert values["cider"] == 3.652771461018366


def test_bit_for_bit_where_pycocoevalcap_is_installed():
    pytest.importorskip("pycocoevalcap")
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    references, predictions = write_reports(300, seed=1), write_reports(300, seed=2)
    wanted, said = ({row: [text] for row, text in enumerate(texts)} for texts in (references, predictions))
    statistics = measure_captions(references, predictions)
    values = statistics.values()
    bleu, _ = Bleu(4).compute_score(wanted, said, verbose=0)
    assert [values[name] for name in BLEU_NAMES] == pytest.approx(bleu, abs=1e-12)
    for name, scorer, ours in (
        ("rouge_l", Rouge(), statistics.rouge_l),
        ("cider", Cider(), statistics.cider),
    ):
        mean, each = scorer.compute_score(wanted, said)
        assert values[name] == mean
        np.testing.assert_array_equal(ours, each)


def test_meteor_is_that_of_pycocoevalcap_or_says_what_it_lacks():
    reason = why_no_meteor()
    if reason is not None:
        assert "java" in reason or "pycocoevalcap" in reason
        pytest.skip(reason)
    assert meteor(REFERENCES, PREDICTIONS) == COCO_METEOR


def test_bleu_is_sacrebleus_of_the_corpus():
    references, predictions = write_reports(40, seed=3), write_reports(40, seed=4)
    values = measure_captions(references, predictions).values()
    for order, name in enumerate(BLEU_NAMES, start=1):
        theirs = BLEU(tokenize="none", smooth_method="none", force=True, max_ngram_order=order)
        expected = theirs.corpus_score(predictions, [references]).score / 100
        assert values[name] == pytest.approx(expected, abs=1e-14)


def test_rouge_weighs_recall_by_beta():
    """Three of the four words of the reference stand in order among two more: P 3/5, R 3/4."""
    score = rouge_l("a b c d".split(), "a x b d y".split())
    assert score == pytest.approx((1 + 1.44) * 0.6 * 0.75 / (0.75 + 1.44 * 0.6))


def test_weights_are_studies_that_stand_several_times():
    """BLEU and ROUGE-L are those of the corpus written out; CIDEr-D keeps the document frequencies of all."""
    references, predictions = write_reports(12, seed=5), write_reports(12, seed=6)
    statistics = measure_captions(references, predictions)
    weights = np.random.default_rng(0).integers(0, 3, size=(12, 5)).astype(float)
    weighed = statistics.weigh(weights)
    for column, weight in enumerate(weights.T.astype(int)):
        rows = np.repeat(np.arange(12), weight)
        expected = measure_captions([references[n] for n in rows], [predictions[n] for n in rows]).values()
        expected["cider"] = statistics.cider[rows].mean()
        assert {name: weighed[name][column] for name in MEASURES} == pytest.approx(expected, abs=1e-14)


def test_nothing_said_is_zero_and_not_a_warning():
    statistics = measure_captions(REFERENCES, [""] * len(REFERENCES))
    assert set(statistics.values().values()) == {0.0}
    weighed = statistics.weigh(np.ones((len(REFERENCES), 2)))
    assert all((weighed[name] == 0).all() for name in MEASURES)


def test_other_numbers_of_texts_are_refused():
    with pytest.raises(ValueError, match="6 references and 5 predictions"):
        measure_captions(REFERENCES, PREDICTIONS[:5])
    with pytest.raises(ValueError, match="at least one"):
        measure_captions([], [])
