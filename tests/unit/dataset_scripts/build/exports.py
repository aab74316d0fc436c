"""What the tests of exports share."""

from pathlib import Path

from dataset_scripts import Cocktail


def cocktail(raw: Path, **options: object) -> Cocktail:
    return Cocktail(data_dir=raw, build_dir=raw.parent / "cache", **options)


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])
