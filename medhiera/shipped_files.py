"""Where the files lie that belong to this project and are no modules of its packages.

In a clone they stand at the top, where a reader looks for them: the scripts beside the README, `configs/`,
`model_cards/`. An installation has them inside this package (pyproject.toml says where to), so that no name
such as `predict` or `configs` becomes a module of everyone's. On the floor of medhiera.
"""

from pathlib import Path

from dataset_scripts.mistyped import did_you_mean
from medhiera.errors import UserError

PACKAGE = Path(__file__).resolve().parent
IS_INSTALLED = (PACKAGE / "scripts").is_dir()
"""False in a clone, and where the project is installed from one as editable."""

_TOP = PACKAGE if IS_INSTALLED else PACKAGE.parent

SCRIPTS = PACKAGE / "scripts" if IS_INSTALLED else _TOP
"""train_mae.py, train_cls.py, predict.py and the others."""
RECIPES = _TOP / "configs"
TEMPLATES = _TOP / "model_cards"


def script(name: str) -> str:
    """The path of one of our scripts, such as train_mae.py, for a process of its own."""
    return str(SCRIPTS / name)


def find_recipe(name: str | Path) -> Path:
    """A recipe by its path, or one that we ship by its name.

    Args:
        name: a file; where there is none of this path, `mae_paper.yaml` or `configs/mae_paper.yaml`, with or
            without the suffix, name ours, in whatever folder the command is given.

    Raises:
        UserError: it is neither; ours are named.
    """
    path = Path(name)
    if path.exists():
        return path
    if path.parent in (Path("."), Path("configs")):
        for file in (RECIPES / path.name, RECIPES / f"{path.name}.yaml"):
            if file.is_file():
                return file
    ours = sorted(file.stem for file in RECIPES.glob("*.yaml"))
    near = did_you_mean(path.stem, ours) or ";"
    raise UserError(
        f"no recipe at {name}{near} name your own file by its path, or one of ours: {', '.join(ours)}"
    )
