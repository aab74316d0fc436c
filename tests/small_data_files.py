"""The five sets of benchmarks.small_result in small, as its command finds them."""

import numpy as np
from PIL import Image

from benchmarks.small_data import RADIOGRAPHY
from dataset_scripts.phantom.cohort import write_phantom_cohort


def write_noise(path, seed, side=24):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_shared(folder):
    """The five sets in small: Kermany's of noise, each image another; the others drawn."""
    for name, seed in (("mini_cocktail", 1), ("nih64", 2)):
        write_phantom_cohort(folder / name, patients=10, image_size=32, seed=seed)
    kermany, number = folder / "kermany" / "chest_xray", 0
    for split, patients in (("train", 14), ("val", 1), ("test", 3)):
        for _ in range(patients):
            number += 1
            for kind, name in (("NORMAL", f"IM-{number:04d}-0001"), ("PNEUMONIA", f"person{number}_virus_1")):
                write_noise(kermany / split / kind / f"{name}.jpeg", number + 1000 * (kind == "NORMAL"))
    real = folder / "radiography_128" / RADIOGRAPHY
    for number, name in enumerate(("COVID", "Normal")):
        write_noise(real / name / "images" / f"{name}-1.png", 5000 + number)
        write_noise(folder / "mini_cocktail" / RADIOGRAPHY / name / "images" / f"{name}-1.png", 6000 + number)
    for number in range(2):
        write_noise(folder / "jsrt" / "images" / f"JPCLN{number:03d}.jpg", 7000 + number)
    return folder
