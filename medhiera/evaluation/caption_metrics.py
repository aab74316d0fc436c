"""BLEU, ROUGE-L, CIDEr-D and METEOR of written reports, as coco-caption computes them.

Below captions.py, which reads, cleans and prints. A report is a text, and its words are what stands between
white space: no tokenizer is applied, as R2Gen and those after it apply none. Every study has one reference.

BLEU's n-grams are counted by sacrebleu. What is kept of a study is enough to compute each measure again for
any weighting of the studies, which is what the bootstrap asks for.
"""

import importlib.util
import logging
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics.bleu import BLEU

from medhiera.errors import UserError
from medhiera.evaluation.bootstrap import Floats

logger = logging.getLogger(__name__)

ORDERS = 4
"""n-grams of 1 to 4 words, in BLEU and in CIDEr-D."""

BLEU_NAMES = tuple(f"bleu_{order}" for order in range(1, ORDERS + 1))
MEASURES = (*BLEU_NAMES, "rouge_l", "cider")
"""What every pair of references and predictions has, in the order in which tables show it."""

ROUGE_BETA = 1.2
"""coco-caption's: recall counts 1.44 times as much as precision. The package rouge-score has 1."""

CIDER_SIGMA = 6.0
"""Of the Gaussian by which CIDEr-D punishes another length, in words."""

NGram = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class CaptionStatistics:
    """What the measures need of each study.

    Attributes:
        bleu: (studies, 2 + 2 × ORDERS), whole numbers: words of the prediction, words of the reference,
            matched n-grams of each order, n-grams of the prediction of each order.
        rouge_l: (studies,).
        cider: (studies,), 0 to 10.
    """

    bleu: Floats
    rouge_l: Floats
    cider: Floats

    def __len__(self) -> int:
        return len(self.rouge_l)

    def values(self) -> dict[str, float]:
        """Name of each of `MEASURES` → its value for these studies.

        BLEU is sacrebleu's, of the summed counts; a corpus in which no n-gram of some order matches has 0
        there, where coco-caption adds 1e-15 to the count.
        """
        words, wanted, *counts = (int(count) for count in self.bleu.sum(axis=0))
        scores = [
            BLEU.compute_bleu(
                counts[:order], counts[ORDERS : ORDERS + order], words, wanted, max_ngram_order=order
            )
            for order in range(1, ORDERS + 1)
        ]
        bleu = {name: score.score / 100 for name, score in zip(BLEU_NAMES, scores, strict=True)}
        return {**bleu, "rouge_l": float(np.mean(self.rouge_l)), "cider": float(np.mean(self.cider))}

    def weigh(self, weights: Floats) -> dict[str, Floats]:
        """The same measures where each study stands several times, or not at all.

        BLEU is computed anew from the weighted sums of the counts. CIDEr-D's document frequencies stay those
        of all references: a reference that is drawn twice would make its own phrases look common.

        Args:
            weights: (studies, resamples), whole and not negative, none a column of zeros.

        Returns:
            name → (resamples,).
        """
        bleu = dict(zip(BLEU_NAMES, corpus_bleu(self.bleu.T @ weights), strict=True))
        count = weights.sum(axis=0)
        return {**bleu, "rouge_l": self.rouge_l @ weights / count, "cider": self.cider @ weights / count}

    def select(self, is_chosen: NDArray[np.bool_]) -> "CaptionStatistics":
        """Some of the studies; CIDEr-D's document frequencies stay those of all.

        Args:
            is_chosen: (studies,).
        """
        return CaptionStatistics(self.bleu[is_chosen], self.rouge_l[is_chosen], self.cider[is_chosen])


def measure_captions(references: Sequence[str], predictions: Sequence[str]) -> CaptionStatistics:
    """Compare each prediction with its reference.

    Args:
        references: (studies,), at least one; each with a word.
        predictions: (studies,), in the same order; may be empty texts.

    Raises:
        ValueError: no study, or other numbers of references and predictions.
    """
    if not references or len(references) != len(predictions):
        raise ValueError(
            f"{len(references)} references and {len(predictions)} predictions; wanted as many of one as of "
            "the other, and at least one"
        )
    pairs = [(one.split(), other.split()) for one, other in zip(references, predictions, strict=True)]
    return CaptionStatistics(
        bleu=_count_bleu(references, predictions),
        rouge_l=np.array([rouge_l(reference, prediction) for reference, prediction in pairs]),
        cider=cider_d(*zip(*pairs, strict=True)),
    )


def corpus_bleu(sums: Floats) -> Floats:
    """BLEU of many corpora at once, as sacrebleu computes it from the counts of one; 0 where nothing matches.

    Args:
        sums: (2 + 2 × ORDERS, corpora), the columns of `CaptionStatistics.bleu` summed over each corpus.

    Returns:
        (ORDERS, corpora), of n-grams of up to 1, 2, 3 and 4 words.
    """
    words, wanted, *counts = sums
    matched, total = np.stack(counts[:ORDERS]), np.stack(counts[ORDERS:])
    with np.errstate(divide="ignore"):  # nothing matched: a logarithm of -inf, and a BLEU of 0
        logarithms = np.log(np.divide(matched, total, out=np.zeros_like(matched), where=total > 0))
    longer = np.divide(wanted, words, out=np.full_like(words, np.inf), where=words > 0)
    means = np.cumsum(logarithms, axis=0) / np.arange(1, ORDERS + 1)[:, None]
    return np.asarray(np.exp(means + np.minimum(0.0, 1 - longer)))


def _count_bleu(references: Sequence[str], predictions: Sequence[str]) -> Floats:
    """What sacrebleu counts in each study: as `CaptionStatistics.bleu`."""
    # effective_order changes a sentence's score, which is not used, and spares sacrebleu's warning about it.
    bleu = BLEU(tokenize="none", smooth_method="none", force=True, effective_order=True)
    scores = (bleu.sentence_score(said, [true]) for said, true in zip(predictions, references, strict=True))
    return np.array(
        [[score.sys_len, score.ref_len, *score.counts, *score.totals] for score in scores], dtype=float
    )


def rouge_l(reference: Sequence[str], prediction: Sequence[str]) -> float:
    """ROUGE-L of one report, from 0 to 1.

    Args:
        reference: its words, at least one.
        prediction: its words; none gives 0.

    Source: Lin 2004; β as in coco-caption.
    """
    common = _longest_common_subsequence(reference, prediction)
    if not common:
        return 0.0
    precision, recall = common / len(prediction), common / len(reference)
    return ((1 + ROUGE_BETA**2) * precision * recall) / (recall + ROUGE_BETA**2 * precision)


def _longest_common_subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    """How many words stand in both in the same order."""
    above = [0] * (len(other) + 1)
    for word in one:
        row = [0]
        for column, another in enumerate(other, start=1):
            row.append(above[column - 1] + 1 if word == another else max(above[column], row[-1]))
        above = row
    return above[-1]


def cider_d(references: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]]) -> Floats:
    """CIDEr-D of each report, from 0 to 10; the corpus' value is their mean.

    Equal to pycocoevalcap 1.2 bit for bit, therefore in its order of operations. As there, the length of a
    report is its number of bigrams. One study alone has 0: its phrases stand in every reference.

    Args:
        references: (studies,) of words; the document frequencies are theirs.
        predictions: (studies,) of words.

    Returns:
        (studies,).

    Source: Vedantam et al. 2015, arXiv:1411.5726.
    """
    counted = [count_ngrams(words) for words in references]
    frequency = Counter(ngram for counts in counted for ngram in counts)
    idf = {ngram: np.log(float(len(counted))) - np.log(float(found)) for ngram, found in frequency.items()}
    unseen = np.log(float(len(counted)))
    scores = []
    for reference, words in zip(counted, predictions, strict=True):
        said, said_norm = _tf_idf(count_ngrams(words), idf, unseen)
        true, true_norm = _tf_idf(reference, idf, unseen)
        delta = float(max(len(words) - 1, 0) - sum(n for ngram, n in reference.items() if len(ngram) == 2))
        similarity = np.zeros(ORDERS)
        for order in range(ORDERS):
            for ngram, value in said[order].items():
                similarity[order] += min(value, true[order].get(ngram, 0.0)) * true[order].get(ngram, 0.0)
            if said_norm[order] != 0 and true_norm[order] != 0:
                similarity[order] /= said_norm[order] * true_norm[order]
            similarity[order] *= np.e ** (-(delta**2) / (2 * CIDER_SIGMA**2))
        scores.append(np.mean(similarity) * 10.0)
    return np.array(scores)


def count_ngrams(words: Sequence[str]) -> Counter[NGram]:
    """How often each n-gram of 1 to `ORDERS` words occurs, shorter ones first."""
    return Counter(
        tuple(words[start : start + order])
        for order in range(1, ORDERS + 1)
        for start in range(len(words) - order + 1)
    )


def _tf_idf(
    counts: Mapping[NGram, int], idf: Mapping[NGram, float], unseen: float
) -> tuple[list[dict[NGram, float]], list[float]]:
    """Each order's weights by n-gram, and their Euclidean norm."""
    vectors: list[dict[NGram, float]] = [{} for _ in range(ORDERS)]
    squares = [0.0] * ORDERS
    for ngram, count in counts.items():
        weight = float(count) * idf.get(ngram, unseen)
        vectors[len(ngram) - 1][ngram] = weight
        squares[len(ngram) - 1] += weight**2
    return vectors, [float(np.sqrt(square)) for square in squares]


def why_no_meteor() -> str | None:
    """What METEOR 1.5 lacks on this machine; None where it can run."""
    if shutil.which("java") is None:
        return "METEOR 1.5 is a Java program, and there is no java on the PATH"
    if importlib.util.find_spec("pycocoevalcap") is None:
        return (
            'METEOR 1.5 comes with pycocoevalcap, which is not installed: pip install ".[meteor]" brings it'
        )
    return None


def meteor(references: Sequence[str], predictions: Sequence[str]) -> float:
    """METEOR 1.5 of all studies, from 0 to 1, as pycocoevalcap computes it: its archive run by Java.

    nltk's function of that name is another measure and never used.

    Args:
        references: (studies,).
        predictions: (studies,), in the same order.

    Raises:
        UserError: Java or pycocoevalcap is absent, or the program fails.

    Source: Denkowski and Lavie 2014.
    """
    if (reason := why_no_meteor()) is not None:
        raise UserError(reason)
    specification = importlib.util.find_spec("pycocoevalcap")
    assert specification is not None and specification.submodule_search_locations
    archive = Path(specification.submodule_search_locations[0]) / "meteor" / "meteor-1.5.jar"
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("predictions", "references")]
        for file, texts in zip(files, (predictions, references), strict=True):
            file.write_text(
                "".join(f"{' '.join(text.split())}\n" for text in texts), encoding="utf-8", errors="replace"
            )
        command = ["java", "-Xmx2G", "-Dfile.encoding=UTF-8", "-jar", str(archive), *map(str, files)]
        ended = subprocess.run([*command, "-l", "en", "-norm"], capture_output=True, text=True, check=False)
    scores = [line.split()[-1] for line in ended.stdout.splitlines() if line.startswith("Final score:")]
    if ended.returncode or not scores:
        raise UserError(
            f"METEOR ended with status {ended.returncode} and no score: {ended.stderr.strip()[-500:]}"
        )
    return float(scores[0])
