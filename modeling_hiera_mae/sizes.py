"""The published sizes of Hiera, and the largest image's. Imports nothing: --help names them."""

from typing import Any

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"embed_dim": 96, "depths": [1, 2, 7, 2], "num_heads": [1, 2, 4, 8]},
    "small": {"embed_dim": 96, "depths": [1, 2, 11, 2], "num_heads": [1, 2, 4, 8]},
    "base": {"embed_dim": 96, "depths": [2, 3, 16, 3], "num_heads": [1, 2, 4, 8]},
    "base_plus": {"embed_dim": 112, "depths": [2, 3, 16, 3], "num_heads": [2, 4, 8, 16]},
    "large": {"embed_dim": 144, "depths": [2, 6, 36, 4], "num_heads": [2, 4, 8, 16]},
    "huge": {"embed_dim": 256, "depths": [2, 6, 36, 4], "num_heads": [4, 8, 16, 32]},
}
"""embed_dim, depths and heads of each stage (Ryali et al. 2023, appendix, table 2)."""

LARGEST_SIDE = 10_000
"""Pixels of the sizes that a recipe asks for or an image processor says: more would ask for all memory."""
