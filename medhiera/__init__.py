"""What the training scripts share: recipes, transforms, the trainer, metrics, figures, cards.

Stands on the two ground rooms (modeling_hiera_mae, dataset_scripts) and below the scripts. From Python:

    from medhiera import Classifier, Encoder

Importing this package alone imports no torch: the two are loaded when they are first asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medhiera.inference.classifier import Classifier
    from medhiera.inference.encoder import Encoder

__all__ = ["Classifier", "Encoder", "__version__"]

__version__ = "0.1.0"
"""Of the whole project; pyproject.toml reads it here."""


def __getattr__(name: str) -> Any:
    if name == "Classifier":
        from medhiera.inference.classifier import Classifier

        return Classifier
    if name == "Encoder":
        from medhiera.inference.encoder import Encoder

        return Encoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
