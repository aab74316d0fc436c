"""Files of weights as they arrive: whole in other guises, or broken and refused in words; nothing is run."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
import torch
from model_configs import tiny_classifier
from safetensors.torch import load_file, save_file

from modeling_hiera_mae import HieraMAEForImageClassification, HieraMAEForPreTraining
from modeling_hiera_mae.weight_files import clean_weights, read_weights

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 6617844\n"
LABELS = {0: "Edema", 1: "Mass", 2: "Hernia"}
SAFE, PICKLE = "model.safetensors", "pytorch_model.bin"
HEAD = "classifier.bias"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    tiny_classifier(id2label=LABELS).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "folder")


@pytest.fixture(scope="module")
def weights(whole):
    return load_file(whole / SAFE)


def write(folder, weights, name=SAFE):
    (folder / SAFE).unlink(missing_ok=True)
    if name == SAFE:
        save_file(
            {key: value.contiguous() for key, value in weights.items()}, folder / name, {"format": "pt"}
        )
    else:
        torch.save(weights, folder / name)
    return folder


def load(folder, **options):
    return HieraMAEForImageClassification.from_pretrained(folder, **options)


def logits(model):
    with torch.no_grad():
        return model(torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)).logits


@pytest.mark.parametrize("name", [SAFE, PICKLE])
@pytest.mark.parametrize(
    "prefix", ["module.", "model.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.module."]
)
def test_the_prefix_of_a_wrapper_is_taken_off(folder, whole, weights, prefix, name):
    wrapped = {prefix + key: value for key, value in weights.items()}
    found = load(write(folder, wrapped, name))
    assert torch.equal(logits(found), logits(load(whole)))


def test_a_part_that_was_compiled_or_sharded_alone_is_read(folder, whole, weights):
    """torch.compile(model.hiera) and FSDP put their names inside, DDP of a weight average adds a counter."""
    inner = {key.replace("hiera.", "hiera._orig_mod.", 1): value for key, value in weights.items()}
    assert torch.equal(logits(load(write(folder, inner))), logits(load(whole)))
    inner = {key.replace("layers.0.", "layers.0._fsdp_wrapped_module."): v for key, v in weights.items()}
    assert torch.equal(logits(load(write(folder, inner))), logits(load(whole)))
    average = {"n_averaged": torch.tensor(7)} | {f"module.{key}": value for key, value in weights.items()}
    assert torch.equal(logits(load(write(folder, average, PICKLE))), logits(load(whole)))


def test_two_weights_of_one_name_are_refused(weights):
    both = weights | {f"module.{HEAD}": weights[HEAD] + 1}
    with pytest.raises(
        ValueError, match=r"'module\.classifier\.bias' and another weight are both 'classifier"
    ):
        clean_weights(both)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", [SAFE, PICKLE])
def test_other_precisions_become_single(folder, weights, dtype, name):
    write(folder, {key: value.to(dtype) for key, value in weights.items()}, name)
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(content | {"dtype": str(dtype).removeprefix("torch."), "torch_dtype": "bfloat16"})
    )
    model = load(folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.config.dtype == torch.float32
    for key, value in model.state_dict().items():
        assert torch.equal(value, weights[key].to(dtype).float())
    assert load(folder, dtype=torch.bfloat16).dtype == torch.bfloat16  # asked for by name


def test_mixed_precisions_become_single(folder, weights):
    mixed = {key: value.half() if "attn" in key else value for key, value in weights.items()}
    model = load(write(folder, mixed))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    model(torch.randn(2, 3, 64, 64)).logits.sum().backward()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_weights_that_are_no_numbers_are_counted_and_named(folder, weights, bad, dtype):
    damaged = {key: value.to(dtype, copy=True) for key, value in weights.items()}
    damaged[HEAD][1:] = bad
    with pytest.raises(ValueError, match=r"classifier\.bias holds 2 values that are NaN or infinite: "):
        load(write(folder, damaged))
    damaged["hiera.embeddings.position_embeddings"][0, :5] = bad
    with pytest.raises(ValueError, match=r"NaN or infinite, 42 in 2 weights in all"):
        load(write(folder, damaged))


def test_large_finite_weights_are_no_nan(folder, weights):
    """Their sum overflows."""
    large = weights | {HEAD: torch.full((3,), 3e38)}
    assert load(write(folder, large)).classifier.bias.tolist() == pytest.approx([3e38] * 3)
    with pytest.raises(ValueError, match="holds 3 values that are NaN or infinite"):
        load(write(folder, weights | {HEAD: torch.full((3,), 1e300, dtype=torch.float64)}))


def test_quantized_weights_are_refused(folder, weights):
    with pytest.raises(ValueError, match=r"classifier\.weight is of type torch\.int8.*quantized"):
        load(write(folder, weights | {"classifier.weight": weights["classifier.weight"].to(torch.int8)}))


def header_of(path):
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def with_header(path, change):
    header, rest = header_of(path)
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + rest)


BROKEN = {
    "pointer": (lambda p: p.write_text(POINTER), r"model\.safetensors is a Git LFS pointer.*git lfs pull"),
    "empty": (lambda p: p.write_bytes(b""), r"model\.safetensors is empty"),
    "short": (lambda p: p.write_bytes(b"abc"), "not a safetensors file"),
    "cut": (lambda p: p.write_bytes(p.read_bytes()[:-100]), r"is cut short: [\d,]+ bytes are there, and"),
    "cut in the header": (lambda p: p.write_bytes(p.read_bytes()[:500]), "is cut short: 500 bytes are there"),
    "page": (lambda p: p.write_text("<html>not found</html>"), "not a safetensors file.*<html>not found"),
    "longer": (lambda p: p.write_bytes(p.read_bytes() + b"\0" * 9), "is damaged"),
    "header of exabytes": (lambda p: p.write_bytes(b"\xff" * 8 + b"{" * 99), "not a safetensors file"),
    "header of nothing": (lambda p: p.write_bytes(b"\0" * 8 + p.read_bytes()[8:]), "damaged header"),
    "header too short": (
        lambda p: p.write_bytes((99).to_bytes(8, "little") + p.read_bytes()[8:]), "damaged header",
    ),
    "header no JSON": (
        lambda p: p.write_bytes(p.read_bytes().replace(b'"dtype"', b"!dtype!", 1)), "damaged header",
    ),
    "header a list": (lambda p: p.write_bytes((2).to_bytes(8, "little") + b"[]"), "not a safetensors file"),
    "entry no table": (lambda p: with_header(p, lambda h: h.update({HEAD: [1]})), "damaged header"),
    "terabytes": (
        lambda p: with_header(p, lambda h: h[HEAD].update(data_offsets=[0, 10**13], shape=[10**13 // 4])),
        "is cut short: .* promises 10,000,0",
    ),
    "shape without data": (lambda p: with_header(p, lambda h: h[HEAD].update(shape=[10**12])), "is damaged"),
    "unknown type": (lambda p: with_header(p, lambda h: h[HEAD].update(dtype="F12")), "is damaged"),
    "a pickle": (lambda p: torch.save({}, p), "looks like a file of torch.save: name it pytorch_model.bin"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_refused_in_words(folder, kind):
    damage, message = BROKEN[kind]
    damage(folder / SAFE)
    with pytest.raises(ValueError, match=message) as caught:
        load(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


class Writes:
    """A pickle that would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_pickle_with_more_than_weights_is_not_run(folder, weights, tmp_path):
    for more in ({"path": Path("a")}, {"evil": Writes(tmp_path / "made")}):
        write(folder, {"model": weights} | more, PICKLE)
        with pytest.raises(ValueError, match="holds more than weights, which is not read, for it could run"):
            load(folder)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("table", ["model_state", "state_dict", "model", "model_state_dict"])
def test_the_table_is_found_where_training_codes_keep_it(folder, whole, weights, table):
    write(folder, {table: weights, "epoch": 3}, PICKLE)
    assert torch.equal(logits(load(folder)), logits(load(whole)))


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {3: torch.zeros(1)}, None])
def test_a_pickle_without_a_table_is_refused(folder, content):
    write(folder, content, PICKLE)
    with pytest.raises(ValueError, match="is not a table of weights, nor one under"):
        load(folder)


def test_damaged_pickles_are_refused(folder, weights):
    write(folder, weights, PICKLE)
    path = folder / PICKLE
    data = path.read_bytes()
    for content in (
        data[: len(data) // 2],
        b"",
        b"<html>",
        b"\x80\x02}",
        POINTER.encode(),
        pickle.dumps({})[:5],
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"pytorch_model\.bin is (damaged|a Git LFS pointer)"):
            load(folder)


def test_a_small_file_that_unpacks_to_a_large_one_is_refused(folder):
    (folder / SAFE).unlink()
    with zipfile.ZipFile(folder / PICKLE, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 10_000_000)
    with pytest.raises(ValueError, match=r"claims 10,000,000 bytes in [\d,]+"):
        load(folder)


def test_a_tensor_larger_than_its_file_is_refused(folder, weights):
    """A view that repeats one number takes four bytes on disk, and four terabytes as a plain tensor."""
    write(folder, weights | {"classifier.weight": torch.zeros(1).expand(10**6, 10**6)}, PICKLE)
    with pytest.raises(ValueError, match=r"classifier\.weight claims shape \(1000000, 1000000\)"):
        load(folder)
    write(folder, weights | {"classifier.weight": torch.zeros(2, 2).to_sparse()}, PICKLE)
    with pytest.raises(ValueError, match=r"classifier\.weight is no plain tensor"):
        load(folder)


def shard(folder, weights, places):
    (folder / SAFE).unlink()
    names = sorted(weights)
    halves = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, keys in halves.items():
        save_file({key: weights[key] for key in keys}, folder / file, {"format": "pt"})
    index = {"metadata": {}, "weight_map": {key: file for file, keys in halves.items() for key in keys}}
    (folder / f"{SAFE}.index.json").write_text(json.dumps(places(index)))
    return folder


def test_shards_are_read_together_and_a_missing_one_is_named(folder, whole, weights):
    shard(folder, weights, lambda index: index)
    assert torch.equal(logits(load(folder)), logits(load(whole)))
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match=r"lacks 1 of the 2 files .* names, first model-00002-of-00002"):
        load(folder)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({}, "has no weight_map"),
        ([], "holds a JSON list"),
        ({"weight_map": {"a": 3}}, "has no weight_map"),
        ({"weight_map": {"a": "../whole/model.safetensors"}}, "wanted a file of weights beside it"),
        ({"weight_map": {"a": "/etc/passwd"}}, "wanted a file of weights beside it"),
        ({"weight_map": {"a": "config.json"}}, "wanted a file of weights beside it"),
    ],
)
def test_a_bad_index_is_refused(folder, weights, index, message):
    shard(folder, weights, lambda _: index)
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_a_folder_without_weights_is_refused(folder, tmp_path):
    (folder / SAFE).unlink()
    with pytest.raises(
        ValueError, match=r"holds no weights: none of model\.safetensors, .*pytorch_model\.bin"
    ):
        load(folder)
    with pytest.raises(OSError, match=r"has no config\.json"):
        load(tmp_path)


AS_NOBODY = """
import os, sys
from modeling_hiera_mae import HieraMAEForImageClassification
if os.geteuid() == 0:  # root may read everything
    os.setuid(65534)
for folder in sys.argv[1:]:
    try:
        HieraMAEForImageClassification.from_pretrained(folder)
    except OSError as error:
        print("SAID", error)
"""


@pytest.mark.skipif(os.name != "posix", reason="permissions of a Unix")
def test_what_may_not_be_read_is_said(folder, root):
    locked = (".", SAFE, "config.json")
    with tempfile.TemporaryDirectory() as place:  # pytest's own folders are closed to other users
        os.chmod(place, 0o755)
        copies = [shutil.copytree(folder, Path(place) / str(number)) for number in range(len(locked))]
        for copy, name in zip(copies, locked, strict=True):
            (copy / name).chmod(0)
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, *map(str, copies)], capture_output=True, text=True, cwd=root
        )
        for copy in copies:
            copy.chmod(0o755)
    said = [line for line in done.stdout.splitlines() if line.startswith("SAID")]
    assert len(said) == len(locked), done.stdout + done.stderr
    assert all("Permission denied" in line for line in said)


CONFIGS = {
    "no JSON": ("{", r"config\.json is not valid JSON"),
    "empty": ("", r"config\.json is empty"),
    "pointer": (POINTER, r"config\.json is a Git LFS pointer"),
    "list": ("[]", r"config\.json holds a JSON list"),
    "binary": (b"\xff\xfe", r"config\.json is not valid JSON"),
    "deep": ("[" * 100_000, r"config\.json is not valid JSON"),
    "size as text": ({"image_size": "224"}, "image_size"),
    "size null": ({"image_size": None}, "image_size"),
    "depths null": ({"depths": None}, "depths"),
    "depths text": ({"depths": ["1", "2"]}, "depths"),
    "depths without end": ({"depths": [10**9, 1, 1, 1]}, "depths"),
    "heads": ({"num_heads": [3, 1, 2, 2]}, "heads"),
    "embed_dim of gigabytes": ({"embed_dim": 10**9}, "embed_dim"),
    "decoder of terabytes": ({"decoder_hidden_size": 10**7}, "decoder_hidden_size"),
    "stride": ({"patch_stride": [0, 4]}, "patch_stride"),
    "activation": ({"hidden_act": "gelly"}, "hidden_act is 'gelly'"),
    "eps": ({"layer_norm_eps": float("nan")}, "layer_norm_eps is nan; wanted a finite number"),
    "infinite": ({"mlp_ratio": float("inf")}, "mlp_ratio is inf"),
    "labels a list": ({"id2label": ["Edema"]}, "id2label is not a table"),
    "labels with a gap": ({"id2label": {"0": "a", "2": "b", "3": "c"}}, "id2label numbers its 3 names"),
    "labels that are numbers": ({"id2label": {"0": 1, "1": 2, "2": 3}}, "id2label is not a table"),
    "billions of labels": ({"id2label": None, "num_labels": 10**10}, "num_labels is 10000000000"),
    "dtype": ({"dtype": "save"}, "dtype is 'save'"),
    "quantized": (
        {"quantization_config": {"quant_method": "bitsandbytes"}},
        "sets quantization_config, which",
    ),
    "another file": ({"transformers_weights": "../x.safetensors"}, "sets transformers_weights, which is not"),
    "method": ({"to_dict": 3}, "'to_dict', which is no field"),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_broken_config_is_refused_in_words(folder, kind):
    content, message = CONFIGS[kind]
    path = folder / "config.json"
    if isinstance(content, dict):
        content = json.dumps(json.loads(path.read_text()) | content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_a_config_of_absurd_size_takes_no_memory(folder):
    """The decoder is new to a classifier's weights: nothing on disk rules its size out."""
    path = folder / "config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"decoder_hidden_size": 8192, "decoder_depth": 1000})
    )
    with pytest.raises(
        ValueError, match=r"describes a model of [\d,]+ parameters, and its weights hold [\d,]+"
    ):
        HieraMAEForPreTraining.from_pretrained(folder)


def test_what_is_read_stays_the_callers(weights, whole):
    table = {f"module.{key}": value.half() for key, value in weights.items()}
    clean_weights(table)
    assert all(key.startswith("module.") and value.dtype == torch.float16 for key, value in table.items())
    found = read_weights([whole / SAFE])
    assert found.keys() == weights.keys()
