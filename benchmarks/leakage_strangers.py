"""Whether the leakage guard takes strangers for copies: real films among films of other patients.

    python -m benchmarks.leakage_strangers ../shared

The folder holds kermany, radiography_128, mini_cocktail, nih64 and jsrt. Every film is looked for as it is
and changed as a copy would be (picture_changes.py, one way a film, drawn). Children of Kermany are looked for
among children of other patients (number and kind of the file name), the rest among sets that share no
hospital. Pairs that reach the threshold are named, as a set may hold a copy that nobody knew of. Films of one
patient are another matter and counted apart: nih64 among the same patients' others.
"""

import argparse
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.picture_changes import CHANGES
from dataset_scripts.errors import BadImageError
from dataset_scripts.leakage.guard import THRESHOLD
from dataset_scripts.leakage.near_duplicates import Match, best_matches
from dataset_scripts.leakage.thumbnails import make_thumbnails
from dataset_scripts.reading.image_files import IMAGE_SUFFIXES
from dataset_scripts.reading.images import read_image

FOLDS = 4
LONGEST = 512  # of the shorter side: what re-releases store at most
NAMED = 12

FOLDERS = {
    "Kermany": "kermany/chest_xray",
    "Radiography COVID": "radiography_128/COVID-19_Radiography_Dataset/COVID",
    "NIH": "mini_cocktail/ChestXray-NIHCC/images",
    "nih64": "nih64/ChestXray-NIHCC/images",
    "JSRT": "jsrt/images",
}


class Films:
    """The films of one folder: names, and thumbnails as they are and changed."""

    def __init__(self, folder: Path) -> None:
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        read = [(path, both) for path in paths if (both := self._both(path)) is not None]
        self.names = [path.relative_to(folder).as_posix() for path, _ in read]
        self.as_is = np.stack([both[0] for _, both in read])
        self.changed = np.stack([both[1] for _, both in read])
        self.queries = np.concatenate([self.as_is, self.changed])
        self.query_names = [*self.names, *(f"{name} (changed)" for name in self.names)]

    @staticmethod
    def _both(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
        try:
            image = Image.fromarray(read_image(path, LONGEST))
        except BadImageError:  # a white film, say
            return None
        rng = np.random.default_rng(zlib.crc32(path.name.encode()))
        change = CHANGES[str(rng.choice(list(CHANGES)))]
        return make_thumbnails(image), make_thumbnails(change(image, rng).convert("L"))


def kermany_patient(name: str) -> str:
    """Return the patient of a Kermany file name: person number and kind, or the number of a normal film."""
    stem = Path(name).stem
    return "_".join(stem.split("_")[:2]) if stem.startswith("person") else stem.rsplit("-", 1)[0]


def nih_patient(name: str) -> str:
    """Return the patient of a ChestX-ray14 file name."""
    return name.split("_", 1)[0]


def report(title: str, names: list[str], among: list[str], matches: list[Match]) -> None:
    """Print how many queries found something, the highest, and who it was."""
    values = np.array([match.correlation for match in matches])
    found = int((values >= THRESHOLD).sum())
    highest = np.sort(values)[-3:].round(3).tolist()
    print(f"| {title} | {len(values):,} | {len(among):,} | {found} | {highest} |", flush=True)
    for row in np.argsort(-values)[: min(found, NAMED)]:
        match = matches[row]
        print(f"  - {names[row]} ~ {among[match.reference]} ({match.correlation:.3f}) {match.change}")


def among_other_patients(title: str, films: Films, patient: Callable[[str], str]) -> None:
    """Look for each film among those of the patients of the other folds."""
    fold = np.array([zlib.crc32(patient(name).encode()) % FOLDS for name in films.names])
    names, among, matches = [], [], []
    for number in range(FOLDS):
        is_query = np.tile(fold == number, 2)
        others = np.flatnonzero(fold != number)
        found = best_matches(films.queries[is_query], films.as_is[others])
        matches += [Match(int(others[m.reference]), m.correlation, m.change) for m in found]
        names += [films.query_names[row] for row in np.flatnonzero(is_query)]
        among = films.names
    report(title, names, among, matches)


def among_same_patients(films: Films) -> None:
    """Look for each film among the other films of all patients, its own patient's included."""
    seen: dict[str, int] = {}
    half = []
    for name in films.names:
        patient = nih_patient(name)
        half.append(seen.get(patient, 0) % 2)
        seen[patient] = seen.get(patient, 0) + 1
    is_reference = np.array(half) == 1
    among = [name for name, is_one in zip(films.names, is_reference, strict=True) if is_one]
    is_query = np.tile(~is_reference, 2)
    matches = best_matches(films.queries[is_query], films.as_is[is_reference])
    names = [films.query_names[row] for row in np.flatnonzero(is_query)]
    is_same = [
        nih_patient(name) == nih_patient(among[match.reference])
        for name, match in zip(names, matches, strict=True)
    ]
    for title, wanted in (("nih64 among its own: the same patient", True), ("nih64: another patient", False)):
        chosen = [row for row, same in enumerate(is_same) if same == wanted]
        report(title, [names[row] for row in chosen], among, [matches[row] for row in chosen])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shared", type=Path, help="the folder that holds the sets")
    shared = parser.parse_args().shared
    films = {name: Films(shared / folder) for name, folder in FOLDERS.items()}
    print(f"| queries | number | among | at {THRESHOLD} or more | highest |\n|---|---|---|---|---|")
    among_other_patients("Kermany among other children", films["Kermany"], kermany_patient)
    among_other_patients("NIH among other patients", films["NIH"], nih_patient)
    for one, others in (
        ("Kermany", ("NIH", "JSRT", "Radiography COVID")),
        ("Radiography COVID", ("Kermany", "NIH", "JSRT")),
        ("JSRT", ("Kermany", "NIH", "Radiography COVID")),
        ("NIH", ("Kermany", "JSRT", "Radiography COVID")),
    ):
        names = [f"{other}/{name}" for other in others for name in films[other].names]
        references = np.concatenate([films[other].as_is for other in others])
        matches = best_matches(films[one].queries, references)
        report(f"{one} among {', '.join(others)}", films[one].query_names, names, matches)
    among_same_patients(films["nih64"])


if __name__ == "__main__":
    main()
