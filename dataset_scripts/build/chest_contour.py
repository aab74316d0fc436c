"""Where the chest is in each picture of a folder: a mask of its own size, 255 inside the region.

    python -m dataset_scripts.build.chest_contour FOLDER --output_dir MASKS
    python -m dataset_scripts.build.chest_contour FOLDER --output_dir MASKS --contours ChestX-Ray8.csv

The region is the convex hull of both lungs. A network that was trained on drawings alone finds them
(`contour_network`), or --contours says where they are (`contour_files`). docs/high_definition.md has the
figures on real pictures.
"""

# ruff: noqa: E402  (the parser stands above what takes seconds to import)

import argparse
from pathlib import Path


def build_parser() -> argparse.ArgumentParser:
    """The options of this command."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        prog="python -m dataset_scripts.build.chest_contour",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="the pictures, also in folders below it")
    parser.add_argument("--output_dir", type=Path, required=True, help="where the masks go")
    parser.add_argument(
        "--contours",
        type=Path,
        metavar="FILE_OR_FOLDER",
        help="CheXmask's CSV, or a folder of lung masks named as the pictures; the network fills the gaps",
    )
    parser.add_argument("--num_proc", type=int, default=1, help="processes (default: 1)")
    return parser


if __name__ == "__main__":  # --help and mistyped options are answered now
    build_parser().parse_args()

import io
import logging
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from dataset_scripts.build.atomic_files import write_atomically
from dataset_scripts.build.chest_region import ChestRegion, region_of_probabilities
from dataset_scripts.build.contour_files import Contours, read_contours, without_suffix
from dataset_scripts.build.contour_network import load_network, lung_probabilities
from dataset_scripts.build.workers import run_tasks
from dataset_scripts.errors import BadImageError, DataLayoutError, UserError
from dataset_scripts.mistyped import no_folder
from dataset_scripts.reading.image_files import is_picture, walk_folder
from dataset_scripts.reading.images import read_image

logger = logging.getLogger(__name__)


def find_chest(gray: npt.NDArray[np.uint8]) -> ChestRegion:
    """Find the chest of a frontal radiograph; `is_fallback` says that it was not found.

    Args:
        gray: (height, width) of any size.
    """
    return region_of_probabilities(lung_probabilities(load_network(), gray))


@dataclass(frozen=True, slots=True)
class _Task:
    picture: Path
    mask: Path
    region: ChestRegion | None  # the user's own


@dataclass(frozen=True, slots=True)
class _Done:
    picture: Path
    is_own: bool = False
    is_fallback: bool = False
    error: str = ""


def _write_mask(task: _Task) -> _Done:
    """Write the mask of one picture, or say why there is none."""
    try:
        gray = read_image(task.picture, needs_contrast=False)  # a pale film has a chest too
    except BadImageError as error:
        return _Done(task.picture, error=str(error))
    region = task.region or find_chest(gray)
    task.mask.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    Image.fromarray(region.draw(*gray.shape)).save(content, "PNG")
    write_atomically(task.mask, content.getvalue())
    return _Done(task.picture, is_own=task.region is not None, is_fallback=region.is_fallback)


def write_contours(folder: Path, output_dir: Path, contours: Path | None = None, num_proc: int = 1) -> bool:
    """Write a mask for each picture below a folder, under the same path with the suffix .png.

    Args:
        folder: the pictures, also in folders below it.
        output_dir: where the masks go; it may lie in the folder, and what is in it is not read.
        contours: the user's own, as `read_contours` takes them; without one for a picture, the network is
            asked.
        num_proc: worker processes.

    Returns:
        Whether there is a mask for at least one picture.

    Raises:
        UserError: there is no folder or picture; two pictures have the same mask; or as `read_contours`.
    """
    pictures = _list_pictures(folder, [output_dir, *([contours] if contours else [])])
    masks = {picture: output_dir / f"{without_suffix(picture)}.png" for picture in pictures}
    for mask, number in Counter(masks.values()).items():
        if number > 1:
            same = [picture for picture in pictures if masks[picture] == mask]
            raise DataLayoutError(f"{' and '.join(same)} would have the same mask {mask}. Rename one.")
    own = read_contours(contours, folder, pictures) if contours else Contours()
    for picture, why in own.refused:
        logger.warning("%s: its contour is not used: %s", picture, why)
    tasks = [_Task(folder / picture, masks[picture], own.regions.get(picture)) for picture in pictures]
    counts: Counter[str] = Counter()
    for done in run_tasks(_write_mask, tasks, num_proc):
        if done.error:
            logger.warning("%s cannot be read: %s", done.picture, done.error)
        counts["unreadable" if done.error else "written"] += 1
        counts["fallback"] += done.is_fallback
        counts["own"] += done.is_own
    logger.info(
        "%d masks in %s: %d from the network, %d from --contours; %d of them are the rectangle, as no chest "
        "was found; %d pictures cannot be read",
        *(counts["written"], output_dir, counts["written"] - counts["own"], counts["own"]),
        *(counts["fallback"], counts["unreadable"]),
    )
    return counts["written"] > 0


def _list_pictures(folder: Path, excluded: Sequence[Path]) -> list[str]:
    if not folder.is_dir():
        raise DataLayoutError(f"{folder}: {no_folder(folder)}")
    top, places = folder.resolve(), [path.resolve() for path in excluded]
    outside = [place for place in places if place == top or not top.is_relative_to(place)]
    pictures = [
        path
        for path in walk_folder(folder).files
        if is_picture(folder / path)
        and not any((folder / path).resolve().is_relative_to(place) for place in outside)
    ]
    if not pictures:
        raise DataLayoutError(f"No picture below {folder}. Name the folder of the pictures.")
    return pictures


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        is_done = write_contours(options.folder, options.output_dir, options.contours, options.num_proc)
    except (UserError, OSError) as error:
        logger.error("%s: %s", parser.prog, error)
        return 1
    except KeyboardInterrupt:
        logger.error("\n%s: interrupted; finished masks are kept", parser.prog)
        return 130
    return 0 if is_done else 1


if __name__ == "__main__":
    sys.exit(main())
