"""Who is in the phantom cohort: patients, their films, what each film shows, and the test list.

It stands before `phantom`, which draws the films and writes them as the sources.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dataset_scripts.phantom.anatomy import Body, draw_body
from dataset_scripts.phantom.findings import SIGNS, Radiograph, draw_radiograph

# Two of each finding and one more of the frequent three: a card dealt is a finding drawn.
_DECK = [*sorted(SIGNS), *sorted(SIGNS), "Atelectasis", "Effusion", "Infiltration"]

_FINDINGS_PER_IMAGE = [0] * 7 + [1] * 4 + [2] * 4 + [3] * 5

_NEVER_TOGETHER = [{"Emphysema", "Cardiomegaly"}, {"Emphysema", "Edema"}]


@dataclass(frozen=True)
class Film:
    """One ChestX-ray14 row."""

    image_index: str
    patient: int
    follow_up: int
    age: int
    is_ap: bool
    is_test: bool
    body: Body
    findings: tuple[str, ...]


def keyed_generator(seed: int, *key: int) -> np.random.Generator:
    """A generator of its own for every thing that is drawn, so that the order of drawing does not matter."""
    return np.random.default_rng([seed, *key])


def plan_films(patients: int, seed: int) -> list[Film]:
    """Deal findings, ages, views and splits to patients; a quarter of the patients is the test list."""
    rng = keyed_generator(seed, 0)
    is_test = np.zeros(patients, dtype=bool)
    is_test[rng.permutation(patients)[: round(patients / 4)]] = True
    dealer = _Dealer(rng)
    films: list[Film] = []
    for patient in range(1, patients + 1):
        body = draw_body(rng, is_female=bool(rng.random() < 0.45))
        age = int(rng.integers(18, 88))
        findings: tuple[str, ...] = ()
        for follow_up in range(rng.choice([1, 2, 3, 4, 6, 8], p=[0.5, 0.25, 0.12, 0.06, 0.04, 0.03])):
            if follow_up == 0 or rng.random() > 0.4:  # else what was there is still there
                findings = dealer.deal()
            # Two typing errors, as in the original.
            shown_age = {2: 412, 5: 148}.get(patient, age + follow_up // 2)
            is_ap = bool(rng.random() < (0.5 if len(findings) > 1 else 0.25))
            index = f"{patient:08d}_{follow_up:03d}.png"
            in_test = bool(is_test[patient - 1])
            films.append(Film(index, patient, follow_up, shown_age, is_ap, in_test, body, findings))
    return films


class _Dealer:
    """Deals findings from shuffled decks, so that small cohorts have every finding too."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._numbers: list[int] = []
        self._cards: list[str] = []

    def deal(self) -> tuple[str, ...]:
        """The findings of one image, none for about a third of the images."""
        if not self._numbers:
            self._numbers = self._rng.permutation(_FINDINGS_PER_IMAGE).tolist()
        number = self._numbers.pop()
        hand: list[str] = []
        while len(hand) < number:
            fitting = [card for card in self._cards if _fits(card, hand)]
            if not fitting:
                self._cards += self._rng.permutation(_DECK).tolist()
                continue
            self._cards.remove(fitting[0])
            hand.append(fitting[0])
        return tuple(sorted(hand))


def _fits(card: str, hand: Sequence[str]) -> bool:
    return card not in hand and not any({card, other} in _NEVER_TOGETHER for other in hand)


def draw_film(film: Film, image_size: int, seed: int) -> Radiograph:
    """Draw a film: the same pixels whichever source asks for it."""
    rng = keyed_generator(seed, 1, film.patient, film.follow_up)
    return draw_radiograph(film.body, film.findings, image_size, rng, is_ap=film.is_ap)


def choose_leaks(films: Sequence[Film], number: int, rng: np.random.Generator) -> list[Film]:
    """Films with a finding, the first third of them from the test list."""
    chosen: list[Film] = []
    for is_test, share in ((True, max(1, number // 3)), (False, number - max(1, number // 3))):
        pool = [film for film in films if film.findings and film.is_test == is_test and film not in chosen]
        chosen += [pool[index] for index in rng.permutation(len(pool))[:share]]
    return chosen
