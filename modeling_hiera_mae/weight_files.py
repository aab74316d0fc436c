"""The files of a checkpoint: found, judged by their headers before memory is asked for, and read.

Stands between a folder (or Hub id) and pretrained.py and convert.py: every weight and every config.json that
this package reads comes through here, and whatever is wrong with a file is a ValueError or an OSError.
"""

import json
import logging
import math
import os
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from transformers.modeling_utils import load_state_dict
from transformers.utils import (
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
    cached_file,
)

logger = logging.getLogger(__name__)

Weights = dict[str, torch.Tensor]

_LARGEST_JSON = 64 * 2**20
"""Bytes; the index of the largest published models is a tenth of it."""

_LARGEST_HEADER = 100 * 2**20
"""Bytes of a safetensors header, as its library limits it."""

_TABLES = ("model_state", "state_dict", "model_state_dict", "model", "module")
"""Where training codes keep the table of weights in a .pth: Meta's, Lightning's, and common others."""

_LEADING = {
    "module.": "DataParallel, DDP or a weight average",
    "model.": "a wrapper that holds the model as `model`",
}
"""Prefixes that a wrapper puts before every name; no Hiera has a part of such a name."""

_ANYWHERE = {
    "_orig_mod.": "torch.compile",
    "_fsdp_wrapped_module.": "FSDP",
    "_checkpoint_wrapped_module.": "activation checkpointing",
}

_AGAIN = "get it again, from where it was saved or published"


def read_json(path: Path) -> dict[str, Any]:
    """An object of a JSON file; see check_finite for its numbers.

    Raises:
        ValueError: it is empty, damaged, or something else than an object.
        OSError: it cannot be opened.
    """
    content = read_json_value(path)
    if not isinstance(content, dict):
        raise ValueError(
            f"{path.name} holds a JSON {type(content).__name__}; wanted an object, {{…}}: {_AGAIN}."
        )
    return content


def read_json_value(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        ValueError: it is empty or damaged.
        OSError: it cannot be opened.
    """
    size = path.stat().st_size
    if size > _LARGEST_JSON:
        raise ValueError(f"{path.name} has {size / 2**20:,.0f} MiB; wanted a short JSON file: {_AGAIN}.")
    data = path.read_bytes()
    _refuse_pointer(path, data)
    if not data.strip():
        raise ValueError(f"{path.name} is empty; {_AGAIN}.")
    try:
        return json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is not valid JSON ({error}); {_AGAIN}.") from error


def check_finite(content: Mapping[str, Any], name: str) -> None:
    """Refuse NaN and infinities, which Python's JSON has words for and no setting means.

    Args:
        content: of a JSON file.
        name: the file's.

    Raises:
        ValueError: with the keys that lead to the first one.
    """
    waiting: list[tuple[str, Any]] = [("", content)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} says {place.lstrip('.')} is {value}; wanted a finite number.")
        if isinstance(value, dict | list):
            entries = value.items() if isinstance(value, dict) else enumerate(value)
            waiting += [(f"{place}.{key}", entry) for key, entry in entries]


def find_file(source: str, name: str, hub_options: Mapping[str, Any]) -> Path | None:
    """A file of a folder, or of a Hub repository, which is fetched (or found in the cache).

    Args:
        source: folder or Hub id.
        name: the file's.
        hub_options: transformers' own: `revision`, `subfolder`, `token` and the like.

    Returns:
        None where there is no such file.

    Raises:
        OSError: no such repository, none that can be reached, or a folder that may not be read.
        ValueError: no folder, and no name that a repository can have.
    """
    if os.path.isdir(source):
        os.listdir(source)  # a folder without permission would look like one that lacks the file
    found = cached_file(source, name, _raise_exceptions_for_missing_entries=False, **hub_options)
    return None if found is None else Path(found)


def find_weights(
    source: str,
    hub_options: Mapping[str, Any],
    variant: str | None = None,
    use_safetensors: bool | None = None,
) -> list[Path]:
    """The files that hold the weights of a folder or Hub id, in the order in which transformers looks.

    Args:
        source: folder or Hub id.
        hub_options: see find_file.
        variant: as in transformers: "fp16" for model.fp16.safetensors.
        use_safetensors: as in transformers: False skips safetensors, True takes nothing else.

    Raises:
        ValueError: there are none; an index is damaged, or names a file that is not there.
        OSError: see find_file.
    """
    names = [SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME] if use_safetensors is not False else []
    names += [WEIGHTS_NAME, WEIGHTS_INDEX_NAME] if not use_safetensors else []
    for plain in names:
        stem, dot, suffix = plain.partition(".")
        name = plain if variant is None else f"{stem}.{variant}{dot}{suffix}"
        path = find_file(source, name, hub_options)
        if path is not None:
            return (
                [path] if plain in (SAFE_WEIGHTS_NAME, WEIGHTS_NAME) else _shards(source, path, hub_options)
            )
    raise ValueError(
        f"{source} holds no weights: none of {', '.join(names)}. Name the folder that save_pretrained, a "
        "training script or python -m modeling_hiera_mae.convert wrote."
    )


def _shards(source: str, index: Path, hub_options: Mapping[str, Any]) -> list[Path]:
    """The files that an index names."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(n, str) for n in places.values()):
        raise ValueError(f"{index.name} has no weight_map from weights to files; {_AGAIN}.")
    names = sorted(set(places.values()))
    for name in names:
        # An index may come from anywhere: nothing outside of its own folder is opened.
        if Path(name).name != name or Path(name).suffix != (
            ".safetensors" if "safetensors" in index.name else ".bin"
        ):
            raise ValueError(f"{index.name} names {name!r}; wanted a file of weights beside it.")
    found = {name: find_file(source, name, hub_options) for name in names}
    absent = [name for name, path in found.items() if path is None]
    if absent:
        raise ValueError(
            f"{source} lacks {len(absent)} of the {len(names)} files that {index.name} names, first "
            f"{absent[0]}; {_AGAIN}."
        )
    return [path for path in found.values() if path is not None]


def read_weights(paths: Iterable[Path], *, keep_dtype: bool = False) -> Weights:
    """The weights in one or more files, in single precision, by names without a wrapper's prefix.

    Nothing of a pickle is executed; headers are checked before memory is asked for.

    Args:
        paths: .safetensors files, or what torch.save wrote.
        keep_dtype: leave every weight in the precision it is stored in.

    Raises:
        ValueError: a file is a Git LFS pointer, cut short, damaged or something else, or holds more than
            weights; or weights are NaN, infinite or quantized.
        OSError: a file cannot be opened.
    """
    weights: Weights = {}
    for path in paths:
        with path.open("rb") as file:
            start = file.read(256)
        _refuse_pointer(path, start)
        table = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
        for name in table.keys() & weights.keys():
            raise ValueError(f"{path.name} holds {name}, which another file of it holds too; {_AGAIN}.")
        weights |= table
    return clean_weights(weights, keep_dtype=keep_dtype)


def clean_weights(table: Mapping[str, torch.Tensor], *, keep_dtype: bool = False) -> Weights:
    """Take wrappers' prefixes off the names, widen to float32, refuse what is not a finite number.

    Args:
        table: weights by name; left as it is.
        keep_dtype: see read_weights.

    Raises:
        ValueError: NaN or infinite weights (with the first one's name, and how many), weights that are not
            plain floating-point tensors, or two that have one name without the prefix.
    """
    weights: Weights = {}
    bad: dict[str, int] = {}
    for name, tensor in table.items():
        plain = _plain_name(name)
        if plain in weights:
            raise ValueError(f"{name!r} and another weight are both {plain!r} without a wrapper's prefix.")
        _refuse_odd_tensor(name, tensor)
        if tensor.is_floating_point():
            single = tensor.to(torch.float32)
            # One pass, no copy: a finite sum has finite terms. Finite terms whose sum overflows are counted.
            if not torch.isfinite(single.sum()):
                count = int((~torch.isfinite(single)).sum())
                bad |= {name: count} if count else {}
            tensor = tensor if keep_dtype else single
        weights[plain] = tensor
    if bad:
        first = next(iter(bad))
        total = f", {sum(bad.values()):,} in {len(bad)} weights in all" if len(bad) > 1 else ""
        raise ValueError(
            f"{first} holds {bad[first]:,} values that are NaN or infinite{total}: the training that wrote "
            "them diverged, or the file is damaged. Use an earlier checkpoint."
        )
    _say_prefixes(table)
    return weights


def _plain_name(name: str) -> str:
    for inner in _ANYWHERE:
        name = name.replace(inner, "")
    while prefix := next((prefix for prefix in _LEADING if name.startswith(prefix)), None):
        name = name.removeprefix(prefix)
    return name


def _say_prefixes(names: Iterable[str]) -> None:
    kept = list(names)
    found = {
        prefix: origin
        for prefix, origin in (_LEADING | _ANYWHERE).items()
        if any(name.startswith(prefix) if prefix in _LEADING else prefix in name for name in kept)
    }
    for prefix, origin in found.items():
        logger.info("%r, which %s puts before names of weights, is taken off", prefix, origin)


def _refuse_odd_tensor(name: str, tensor: torch.Tensor) -> None:
    """Whatever is no plain table of floating-point numbers; a lone integer is a counter and may stay."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta or tensor.is_nested:
        raise ValueError(f"{name} is no plain tensor ({tensor.layout}, {tensor.device}); save dense weights.")
    if not tensor.is_floating_point() and tensor.dim() > 0:
        raise ValueError(
            f"{name} is of type {tensor.dtype}; wanted floating-point weights: quantized ones are not read."
        )
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"{name} claims shape {tuple(tensor.shape)}, more than the file holds; {_AGAIN}.")


def _refuse_pointer(path: Path, start: bytes) -> None:
    if start.startswith(b"version https://git-lfs"):
        raise ValueError(
            f"{path.name} is a Git LFS pointer, not the file itself: it was cloned without git-lfs. Run "
            "`git lfs pull` in its repository, or download the file."
        )


def _read_safetensors(path: Path) -> Weights:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        start = file.read(1)
        if size < 10 or start != b"{" or length > _LARGEST_HEADER:
            _refuse_foreign(path, size)
        if length > size - 8:
            _refuse_cut(path, size, 8 + length)
        header = start + file.read(length - 1)
    try:
        entries = json.loads(header.decode("utf-8"))
        ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
        promised = 8 + length + max(ends, default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path.name} has a damaged header ({type(error).__name__}: {error}); {_AGAIN}."
        ) from error
    if promised > size:
        _refuse_cut(path, size, promised)
    try:
        return load_state_dict(path)
    except Exception as error:  # safetensors' own class derives from Exception and nothing narrower
        raise ValueError(f"{path.name} is damaged ({error}); {_AGAIN}.") from error


def _refuse_cut(path: Path, size: int, promised: int) -> NoReturn:
    raise ValueError(
        f"{path.name} is cut short: {size:,} bytes are there, and its header promises {promised:,}. The "
        f"download or copy did not finish, or the disk was full; {_AGAIN}."
    )


def _refuse_foreign(path: Path, size: int) -> NoReturn:
    if size == 0:
        raise ValueError(f"{path.name} is empty; {_AGAIN}.")
    with path.open("rb") as file:
        start = file.read(16)
    hint = "; it looks like a file of torch.save: name it pytorch_model.bin" if start[:2] == b"PK" else ""
    raise ValueError(f"{path.name} is damaged or not a safetensors file (it begins with {start!r}){hint}.")


def _read_pickle(path: Path) -> Weights:
    """The table of weights in what torch.save wrote; nothing in it is executed."""
    _refuse_packed(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's advice on how such a file should have been written
            content = load_state_dict(path, weights_only=True)
    except Exception as error:  # the unpickler lets through whatever a damaged file makes it raise
        is_more = re.search(r"[Uu]nsupported (global|class)|can only build Tensor", str(error)) is not None
        fault = (
            "holds more than weights, which is not read, for it could run code; save the table of weights "
            "alone: torch.save(model.state_dict(), …)"
            if is_more
            else f"is damaged, or no file of torch.save ({_first_line(error)}); {_AGAIN}"
        )
        raise ValueError(f"{path.name} {fault}.") from error
    if isinstance(content, Mapping):
        content = next((content[key] for key in _TABLES if isinstance(content.get(key), Mapping)), content)
    is_table = isinstance(content, Mapping) and all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in content.items()
    )
    if not is_table:
        raise ValueError(
            f"{path.name} is not a table of weights, nor one under {', '.join(map(repr, _TABLES))}; save "
            "the table alone: torch.save(model.state_dict(), …)."
        )
    return dict(content)


def _refuse_packed(path: Path) -> None:
    """torch.save compresses nothing; a small file that unpacks to a large one is not its."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise ValueError(f"{path.name} is damaged ({error}); {_AGAIN}.") from error
    if unpacked > path.stat().st_size:
        raise ValueError(
            f"{path.name} is damaged, or no file of torch.save: it claims {unpacked:,} bytes in "
            f"{path.stat().st_size:,}; {_AGAIN}."
        )


def _first_line(error: BaseException) -> str:
    """What torch says of a file; below it comes advice to load the file without weights_only."""
    return (str(error) or type(error).__name__).strip().splitlines()[0]
