"""Which images of one set stand in another: the pairs, a contact sheet and a verdict, resumable.

`ImageSet`s → `compare` → pairs.csv, pairs.png and verdict.json in a folder. What was read and found is kept
in the folder's `.leakage` until all is done, so that a killed run goes on where it was.
"""

import csv
import io
import itertools
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets.utils import tqdm

from dataset_scripts.build.atomic_files import read_json, whole_file, write_atomically, write_json
from dataset_scripts.leakage.contact_sheet import save_pairs
from dataset_scripts.leakage.guard import THRESHOLD
from dataset_scripts.leakage.image_sets import ImageSet
from dataset_scripts.leakage.near_duplicates import PART, REFINED, Match, find_matches
from dataset_scripts.leakage.thumbnails import Thumbnails, read_thumbnails

PAIRS_FILE, SHEET_FILE, VERDICT_FILE = "pairs.csv", "pairs.png", "verdict.json"

SCORES = (
    "A score is no percentage: even an identical file has about 0.75 to 0.9, and from "
    f"{THRESHOLD:.2f} on two images count as one picture."
)
"""Of the column `score`; docs/data.md has the measurement."""

_WORK_FOLDER = ".leakage"

_MORE = 4  # times as many candidates, for an image that has many copies

_BLOCK = 4096  # images read between two files of thumbnails


@dataclass(frozen=True, slots=True)
class _Pair:
    query: int
    match: Match


def compare(a: ImageSet, b: ImageSet, output_dir: Path, num_proc: int = 1) -> str:
    """Write which images of `a` stand in `b`, or which of `a` are near-duplicates where both are one set.

    Args:
        a: the images that are looked for.
        b: the images among which they are; one file is no copy of itself.
        output_dir: a folder; what an earlier run wrote there is replaced.
        num_proc: threads that read images.

    Returns:
        The verdict, one sentence or some.

    Raises:
        OSError: the folder may not be written, or the disk is full.
    """
    is_same = a.keys == b.keys
    work = _open_work(output_dir, {"a": a.digest, "b": b.digest, "threshold": THRESHOLD})
    thumbnails, unreadable = _read_all(a, work, "a", num_proc)
    others, other_unreadable = (thumbnails, unreadable) if is_same else _read_all(b, work, "b", num_proc)
    place = {key: number for number, key in enumerate(b.keys)}
    own = np.array([place.get(key, -1) for key in a.keys])
    matches = _find_all(thumbnails, others, own, work)
    pairs = [
        _Pair(query, match)
        for query, several in enumerate(matches)
        for match in several
        if match.correlation >= THRESHOLD
    ]
    if is_same:
        pairs = _each_once(pairs)
    pairs.sort(key=lambda pair: (-pair.match.correlation, pair.query, pair.match.reference))
    _write_pairs(output_dir / PAIRS_FILE, pairs, a, b)
    _write_sheet(output_dir / SHEET_FILE, pairs, (a, thumbnails), (b, others))
    highest = max((several[0].correlation for several in matches if several), default=0.0)
    facts = {
        "a": a.place,
        "b": b.place,
        "images_a": len(a.names),
        "images_b": len(b.names),
        "standing": len({pair.query for pair in pairs}),
        "pairs": len(pairs),
        "threshold": THRESHOLD,
        "highest": round(highest, 4),
        "unreadable_a": unreadable,
        "unreadable_b": other_unreadable,
        "no_pictures_a": a.others,
        "no_pictures_b": b.others,
    }
    if is_same:
        groups = _groups(pairs)
        facts |= {"standing": sum(map(len, groups)), "groups": len(groups)}
    verdict = _verdict(facts, is_same)
    write_json(output_dir / VERDICT_FILE, {"verdict": verdict, **facts}, indent=1)
    shutil.rmtree(work)
    return verdict


def _open_work(output_dir: Path, key: dict[str, object]) -> Path:
    """Return the folder of what was read and found before, emptied where it was for other images."""
    work = output_dir / _WORK_FOLDER
    if read_json(work / "key.json") != key:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        write_json(work / "key.json", key)
    return work


def _read_all(images: ImageSet, work: Path, name: str, num_proc: int) -> tuple[Thumbnails, dict[str, str]]:
    """Return the thumbnails of a set, and why which image has none; blocks that were read stay read."""
    blocks: list[Thumbnails] = []
    unreadable: dict[str, str] = {}
    total = len(images.names)
    for start in range(0, total, _BLOCK):
        file, faults = work / f"{name}-{start:08d}.npy", work / f"{name}-{start:08d}.json"
        if not faults.is_file():
            bad: dict[str, str] = {}
            cells = list(itertools.islice(images.cells.read(start), _BLOCK))
            names = images.names[start : start + len(cells)]

            def note(
                row: int, error: Exception, names: Iterable[str] = names, bad: dict[str, str] = bad
            ) -> None:
                bad[tuple(names)[row]] = str(error)

            pixels = read_thumbnails(cells, num_proc, note)
            with whole_file(file) as part, part.open("wb") as opened:
                np.save(opened, pixels)
            write_json(faults, bad)
        blocks.append(np.load(file))
        unreadable |= read_json(faults)
    return np.concatenate(blocks), unreadable


def _find_all(queries: Thumbnails, references: Thumbnails, own: np.ndarray, work: Path) -> list[list[Match]]:
    """Return the matches of each query; those that fill all places are looked for again with more."""
    found = _find(queries, references, own, work / "matches.jsonl", 1)
    effort, crowded = 1, list(range(len(found)))
    while crowded := [query for query in crowded if 2 * len(found[query]) >= effort * REFINED]:
        effort *= _MORE
        file = work / f"matches-{effort}.jsonl"
        for query, matches in zip(
            crowded, _find(queries[crowded], references, own[crowded], file, effort), strict=True
        ):
            found[query] = max(found[query], matches, key=len)
    return found


def _find(
    queries: Thumbnails, references: Thumbnails, own: np.ndarray, file: Path, effort: int
) -> list[list[Match]]:
    """Return the matches of each query; one line of the file holds what is found for some of them."""
    found: list[list[Match]] = []
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.is_file() else []
    whole = [line for line in lines if line.endswith("\n")]  # a killed run may leave half a line
    for line in whole:
        found += [[Match(*match) for match in several] for several in json.loads(line)]
    with file.open("w", encoding="utf-8") as log:
        log.writelines(whole)
        log.flush()
        done = min(len(whole) * PART, len(queries))
        with tqdm(
            total=len(queries),
            initial=done,
            desc="Comparing" if effort == 1 else "Looking for more copies",
            unit=" images",
        ) as bar:
            for part in find_matches(queries, references, own, done, effort) if done < len(queries) else ():
                rows = [[(m.reference, m.correlation, m.change) for m in several] for several in part]
                log.write(json.dumps(rows) + "\n")
                log.flush()
                found += part
                bar.update(len(part))
    return found


def _each_once(pairs: Iterable[_Pair]) -> list[_Pair]:
    """Of a pair that was found from both sides keep the first side's."""
    kept: dict[frozenset[int], _Pair] = {}
    for pair in pairs:
        kept.setdefault(frozenset((pair.query, pair.match.reference)), pair)
    return list(kept.values())


def _groups(pairs: Iterable[_Pair]) -> list[set[int]]:
    """Return the sets of images that pairs connect."""
    group_of: dict[int, set[int]] = {}
    for pair in pairs:
        joined = group_of.get(pair.query, {pair.query}) | group_of.get(
            pair.match.reference, {pair.match.reference}
        )
        for image in joined:
            group_of[image] = joined
    return list({id(group): group for group in group_of.values()}.values())


def _write_pairs(path: Path, pairs: Iterable[_Pair], a: ImageSet, b: ImageSet) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("a", "b", "score", "change"))
    for pair in pairs:
        match = pair.match
        names = a.names[pair.query], b.names[match.reference]
        writer.writerow((*names, f"{match.correlation:.4f}", match.change))
    write_atomically(path, text.getvalue().encode("utf-8", "surrogateescape"))


def _write_sheet(
    path: Path, pairs: list[_Pair], a: tuple[ImageSet, Thumbnails], b: tuple[ImageSet, Thumbnails]
) -> None:
    """Show the pairs, those first that are least sure; no pairs, no sheet."""
    path.unlink(missing_ok=True)
    if not pairs:
        return
    shown = []
    for pair in pairs:
        query, match = pair.query, pair.match
        pictures = a[1][query, 0], b[1][match.reference, 0]
        names = a[0].names[query], b[0].names[match.reference]
        shown.append((names[0], pictures[0], names[1], pictures[1], match.correlation))
    save_pairs(path, shown)


def _verdict(facts: dict[str, object], is_same: bool) -> str:
    """Say in words what was found, and what was not compared."""
    a, b, count, standing = facts["a"], facts["b"], facts["images_a"], facts["standing"]
    if not standing:
        what = (
            "is a near-duplicate of another" if is_same else f"stands in {b} ({facts['images_b']:,} images)"
        )
        said = f"No image of {a} {what}: of {count:,}, the highest score is {facts['highest']:.2f}."
    elif is_same:
        said = (
            f"{standing:,} of the {count:,} images of {a} form {facts['groups']:,} groups of near-duplicates."
        )
    else:
        said = f"{standing:,} of the {count:,} images of {a} stand in {b} ({facts['images_b']:,} images)."
    if standing:
        said += (
            f" {PAIRS_FILE} names the {facts['pairs']:,} pairs; look at {SHEET_FILE} before you trust them."
        )
    said += f" {SCORES}"
    for side in "a" if is_same else "ab":
        bad = facts[f"unreadable_{side}"]
        assert isinstance(bad, dict)
        if count := facts[f"no_pictures_{side}"]:
            said += f" Files of {facts[side]} that are no pictures, so not compared: {count:,}."
        if bad:
            some = ", ".join(f"{name} ({why})" for name, why in list(bad.items())[:3])
            said += f" Could not be read, so not compared: {len(bad):,} of {facts[side]}, {some}"
            said += f" and others ({VERDICT_FILE} names them)." if len(bad) > 3 else "."
    return said
