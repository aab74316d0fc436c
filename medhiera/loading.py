"""Opens what a folder or Hub id holds, for training, prediction, evaluation, export and the page alike.

Stands on layout.py; every fault of a file is a UserError here, in the words of modeling_hiera_mae or of this
file. Weights are float32 and finite, nothing is executed, and code that a folder ships is never asked for.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import AutoImageProcessor, PreTrainedModel

from medhiera.errors import UserError, one_line
from medhiera.layout import PROCESSOR_FILE, refuse_mistyped
from modeling_hiera_mae.sizes import LARGEST_SIDE
from modeling_hiera_mae.weight_files import check_finite, find_file, find_weights, read_json, read_weights

_RESCALE_FACTORS = (0.001, 0.01)
"""Around 1/255, which makes bytes numbers from 0 to 1."""


def load_model(
    model_class: type[PreTrainedModel], source: str | Path, **options: Any
) -> tuple[Any, dict[str, Any]]:
    """A model in single precision and evaluation mode, and transformers' report on its weights.

    Args:
        model_class: one of modeling_hiera_mae.
        source: a stage's folder, any Hiera's, or a Hub id.
        **options: transformers' own, and fields of the configuration.

    Raises:
        UserError: no such folder or repository, no Hiera, or whatever is wrong with one of its files.
    """
    refuse_mistyped(source)
    try:
        model, report = model_class.from_pretrained(source, output_loading_info=True, **options)
    except (ValueError, OSError) as error:
        raise UserError(f"{source} cannot be loaded: {_without(str(source), error)}") from error
    return model, report


def check_weights(source: str | Path) -> None:
    """Read the weights of a folder or Hub id and let them go: what is wrong with them shows in seconds.

    Args:
        source: a stage's folder, any Hiera's, or a Hub id.

    Raises:
        UserError: there are none, a file is damaged or something else, or weights are NaN or infinite.
    """
    try:
        read_weights(find_weights(str(source), {}))
    except (ValueError, OSError) as error:
        raise UserError(f"{source} cannot be loaded: {_without(str(source), error)}") from error


def load_processor(source: str | Path) -> Any:
    """The image processor that preprocessor_config.json describes, of transformers' own classes.

    Args:
        source: a stage's folder, any Hiera's, or a Hub id.

    Raises:
        UserError: there is none, it is damaged or cannot be used, it says what no image can be prepared with,
            or it wants code of its own to be run.
    """
    try:
        path = find_file(str(source), PROCESSOR_FILE, {})
        content = {} if path is None else read_json(path)
        check_finite(content, PROCESSOR_FILE)
    except (ValueError, OSError) as error:
        raise UserError(f"{source}: {_without(str(source), error)}") from error
    if path is None:
        raise UserError(
            f"{source} has no {PROCESSOR_FILE}, which says how images are prepared; copy the one of the "
            "checkpoint it came from"
        )
    for name in ("size", "crop_size"):
        for side in _whole_numbers(content.get(name)):
            if not 1 <= side <= LARGEST_SIDE:
                raise UserError(
                    f"{source}: {PROCESSOR_FILE} says {name} {side}; wanted 1 to {LARGEST_SIDE} pixels"
                )
    try:
        # False, not left out: transformers would ask on the terminal whether to run a folder's own code.
        processor = AutoImageProcessor.from_pretrained(source, trust_remote_code=False)
        processor(images=[Image.new("RGB", (64, 48))], return_tensors="pt")
        fault = _unmeant_step(processor)
    except Exception as error:  # whatever a field of the wrong type makes the processor raise
        if "trust_remote_code" in str(error):
            raise UserError(
                f"{source}: {PROCESSOR_FILE} names an image processor of its own "
                f"({content.get('image_processor_type')!r}), whose code would have to be run; it is not run. "
                "Name one of transformers' image processors there, such as BitImageProcessor"
            ) from error
        raise UserError(
            f"{source} has no usable {PROCESSOR_FILE}, which says how images are prepared "
            f"({type(error).__name__}: {one_line(error)}); copy the one of the checkpoint it came from"
        ) from error
    if fault is not None:
        raise UserError(
            f"{source}: {PROCESSOR_FILE} says {fault}, or the model sees other pixels than it was trained "
            "on; copy the file of the checkpoint it came from"
        )
    return processor


def _unmeant_step(processor: Any) -> str | None:
    """A setting that would invert, blank or not shrink images, and what is wanted; None where there is none.

    Mean and standard deviation are in units of [0, 1], so bytes are rescaled before they are normalized.
    """
    for name in ("do_resize", "do_rescale"):
        if not getattr(processor, name, True):
            return f"{name} {getattr(processor, name)}; wanted True"
    factor, (least, most) = getattr(processor, "rescale_factor", None), _RESCALE_FACTORS
    if factor is not None and not least <= factor <= most:
        return f"rescale_factor {factor}; wanted {least} to {most}, of which 1/255 is usual"
    for mean in _numbers(getattr(processor, "image_mean", None)):
        if not 0 <= mean <= 1:
            return f"image_mean {mean}; wanted from 0 to 1"
    for std in _numbers(getattr(processor, "image_std", None)):
        if not 0 < std <= 1:
            return f"image_std {std}; wanted above 0 and at most 1"
    return None


def _numbers(value: Any) -> list[float]:
    """Of one channel or several."""
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def _whole_numbers(value: Any) -> Iterator[int]:
    if isinstance(value, int):
        yield value
    elif isinstance(value, dict):
        for entry in value.values():
            yield from _whole_numbers(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _whole_numbers(entry)


def _without(source: str, error: Exception) -> str:
    """The error in one line, without the name that the caller puts before it."""
    return one_line(error).removeprefix(f"{source}: ")
