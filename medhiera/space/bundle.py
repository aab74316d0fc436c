"""A stage's folder and this page → a folder that is a whole Hub Space.

    python -m medhiera.space.bundle demo/phantom/stage2 build/space
    hf upload NAME/SPACE build/space . --repo-type space

Copies the page, the three packages it stands on, and of the stage only what the page reads. The Space's
metadata name the model's licence, and the repository that the stage was published in.
"""

# ruff: noqa: E402  (the parser stands above what takes seconds to import)

import argparse
from pathlib import Path

from medhiera.command_line import new_parser


def build_parser() -> argparse.ArgumentParser:
    """The options of this command."""
    parser = new_parser(__doc__)
    parser.add_argument("stage", type=Path, help="a finished stage 1 or 2")
    parser.add_argument("output", type=Path, help="the folder to write")
    return parser


if __name__ == "__main__":  # --help and mistyped options are answered now
    build_parser().parse_args()

import shutil
from collections.abc import Sequence

import yaml

from dataset_scripts.markdown import front_matter
from medhiera.errors import UserError
from medhiera.hub.licences import LICENCE_FILE, HubLicence, hub_licence, licence_text
from medhiera.hub.lineage import published_name
from medhiera.hub.private_text import check_links, check_private_text
from medhiera.hub.record import read_record
from medhiera.layout import CONFIG_FILE, PROCESSOR_FILE, STAGE_FILES, WEIGHTS_FILE, WRITER_FILES
from medhiera.shipped_files import IS_INSTALLED, PACKAGE, TEMPLATES

ROOMS = ("medhiera", "modeling_hiera_mae", "dataset_scripts")
NEEDED = (CONFIG_FILE, WEIGHTS_FILE, PROCESSOR_FILE)


class BundleError(UserError):
    """The Space could not be made; the message says why."""


def bundle(stage: Path, output: Path) -> None:
    """Write the Space.

    Args:
        stage: a finished stage 1 or 2.
        output: a folder that is empty or absent.

    Raises:
        BundleError: the stage is incomplete, or the output folder is not empty.
        UserError: a file of the stage is a link out of it, or names a folder of this machine or its user.
    """
    absent = [name for name in NEEDED if not (stage / name).is_file()]
    if absent:
        raise BundleError(f"{stage} is no finished stage: it has no {', '.join(absent)}")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise BundleError(f"{output} exists and is not empty; name another folder, or remove it first")
    present = [name for name in (*STAGE_FILES, *WRITER_FILES) if (stage / name).is_file()]
    check_links([stage / name for name in present], stage)
    check_private_text({name: str(stage / name) for name in present}, stage, "")
    ignored = shutil.ignore_patterns("__pycache__", "*.png")
    for room in ROOMS:
        shutil.copytree(PACKAGE.parent / room, output / room, ignore=ignored)
    if not IS_INSTALLED:  # else they lie in medhiera
        shutil.copytree(TEMPLATES, output / TEMPLATES.name, ignore=ignored)
    for name in ("README.md", "requirements.txt"):  # a Space wants them at its top
        shutil.move(output / "medhiera" / "space" / name, output / name)
    _complete_metadata(output / "README.md", stage)
    (output / "model").mkdir()
    for name in present:
        shutil.copy2(stage / name, output / "model" / name)
    if (record := read_record(stage)) is not None:
        (output / LICENCE_FILE).write_text(licence_text(record), encoding="utf-8")
    if "README.md" in present:
        card = output / "model" / "README.md"
        text = card.read_text(encoding="utf-8").replace("THIS_FOLDER", "model")  # snippets work as they stand
        card.write_text(text.replace("THIS_REVISION", "main"), encoding="utf-8")


def _complete_metadata(readme: Path, stage: Path) -> None:
    """The weights' licence, as the code's own is Apache-2.0 in any case, and the model's repository."""
    _, header, body = readme.read_text(encoding="utf-8").split("---\n", 2)
    record, published = read_record(stage), published_name(stage)
    metadata = yaml.safe_load(header)
    del metadata["models"]
    licence = HubLicence("unknown") if record is None else hub_licence(record)
    metadata["license"] = licence.license
    if licence.license == "other":
        metadata |= {"license_name": licence.name, "license_link": LICENCE_FILE}
    if published is not None:
        metadata["models"] = [published]
    readme.write_text(f"{front_matter(metadata)}{body}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    try:
        bundle(options.stage, options.output)
    except UserError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    parser.exit(
        0, f"{options.output}: upload it with hf upload NAME/SPACE {options.output} . --repo-type space\n"
    )


if __name__ == "__main__":
    main()
