"""Random changes of a training image: crop, flip, rotation, RandAugment; seeded by dataset.py."""

from collections.abc import Callable

from torch import Tensor
from torchvision.transforms import v2

from medhiera.config.arguments import AugmentationArguments


def random_crop(image_size: int, smallest_scale: float) -> Callable[[Tensor], Tensor]:
    """A random part of the image, 3:4 to 4:3, resized to the model's input; in place of resize and crop.

    Args:
        image_size: side of the result in pixels.
        smallest_scale: smallest share of the image's area; the largest is all of it.

    Returns:
        A function from (1, any height, any width) uint8 to (1, image_size, image_size).
    """
    crop: Callable[[Tensor], Tensor] = v2.RandomResizedCrop(
        image_size, scale=(smallest_scale, 1.0), interpolation=v2.InterpolationMode.BICUBIC, antialias=True
    )
    return crop


class GrayRandAugment(v2.RandAugment):
    """RandAugment, two of its operations at magnitude 9 of 31, without Color: radiographs are gray.

    Source: Cubuk et al. 2019, arXiv:1909.13719; N, M and the missing Color as in MedTransformer.
    """

    _AUGMENTATION_SPACE = {
        name: operation for name, operation in v2.RandAugment._AUGMENTATION_SPACE.items() if name != "Color"
    }

    def __init__(self) -> None:
        super().__init__(num_ops=2, magnitude=9, num_magnitude_bins=31)


def choose_augmentation(
    options: AugmentationArguments, rotation_degrees: float = 0.0
) -> Callable[[Tensor], Tensor] | None:
    """The recipe's augmentation after the crop: flip, then rotation or RandAugment.

    Args:
        options: flip and RandAugment.
        rotation_degrees: largest angle in degrees; 0 for none.

    Returns:
        A random function of (1, height, width) uint8 pixels, or None where the recipe has no augmentation.
    """
    steps: list[Callable[[Tensor], Tensor]] = []
    if options.horizontal_flip:
        steps.append(v2.RandomHorizontalFlip())
    if options.rand_augment:
        steps.append(GrayRandAugment())
    if rotation_degrees:
        steps.append(random_rotation(rotation_degrees))
    if len(steps) < 2:
        return steps[0] if steps else None
    chain: Callable[[Tensor], Tensor] = v2.Compose(steps)
    return chain


def random_rotation(degrees: float) -> Callable[[Tensor], Tensor]:
    """The paper's augmentation: rotation within ±degrees about the center, black corners, after the crop.

    Args:
        degrees: largest angle in degrees; not negative.

    Returns:
        A function from (1, height, width) uint8 to the same shape.
    """
    rotation: Callable[[Tensor], Tensor] = v2.RandomRotation(
        degrees, interpolation=v2.InterpolationMode.BILINEAR, fill=0
    )
    return rotation
