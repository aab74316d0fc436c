"""What the training scripts share: recipes, transforms, the trainer, metrics, figures, cards.

Stands on the two ground rooms (modeling_hiera_mae, dataset_scripts) and below the scripts.
"""

__version__ = "0.1.0"
"""Of the whole project; pyproject.toml reads it here."""
