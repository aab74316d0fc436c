"""Files as Meta and timm write them, from their own randomly initialised models."""

import json
import warnings

import pytest
import torch
import yaml
from model_configs import tiny_classifier, tiny_mae
from safetensors.torch import save_file
from transformers import AutoModelForImageClassification, HieraForPreTraining, HieraModel

from modeling_hiera_mae import HieraMAEForImageClassification, HieraMAEForPreTraining
from modeling_hiera_mae.convert import convert, main, report, save

SMALL = {"input_size": (64, 64), "embed_dim": 8, "num_heads": 2, "stages": (1, 2, 2, 1)}


@pytest.fixture(scope="module")
def hiera():
    with warnings.catch_warnings():
        # It imports timm.models.layers, which timm has moved.
        warnings.simplefilter("ignore", FutureWarning)
        return pytest.importorskip("hiera")


@pytest.fixture(scope="module")
def meta_mae(hiera):
    from hiera.hiera_mae import MaskedAutoencoderHiera

    torch.manual_seed(0)
    return MaskedAutoencoderHiera(**SMALL, q_pool=2, decoder_embed_dim=16, decoder_depth=2)


def write_pth(model, path):
    torch.save({"model_state": model.state_dict(), "epoch": 400}, path)
    return str(path)


def timm_model(**fields):
    import timm

    torch.manual_seed(0)
    return timm.create_model(
        "hiera_tiny_224",
        pretrained=False,
        img_size=(64, 64),
        embed_dim=8,
        num_heads=2,
        stages=(1, 2, 2, 1),
        **fields,
    )


def test_meta_mae_pth_opens_in_stock_transformers(meta_mae, tmp_path, capsys):
    source = write_pth(meta_mae, tmp_path / "mae_hiera.pth")
    main([source, str(tmp_path / "out"), "--num-heads", "2"])
    printed = capsys.readouterr().out
    assert "HieraMAEForPreTraining" in printed
    assert "decoder_blocks" in printed and "decoder.decoder_block" in printed
    model, info = HieraForPreTraining.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values())
    assert model.config.num_heads == [2, 4, 8, 16]
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\nlicense: cc-by-nc-4.0\n")
    assert "mae_hiera.pth (SHA-256 " in card
    assert str(tmp_path) not in card
    assert HieraMAEForPreTraining.from_pretrained(tmp_path / "out").config.num_query_pool == 2


def test_meta_classifier_pth(hiera, tmp_path):
    source = write_pth(hiera.Hiera(**SMALL, num_classes=7), tmp_path / "hiera.pth")
    save(convert(source, num_heads=2), tmp_path / "out")
    model, info = AutoModelForImageClassification.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values())
    assert model.config.num_labels == 7
    assert model.config.problem_type == "single_label_classification"


def test_meta_hub_folder_states_its_own_heads(meta_mae, tmp_path):
    stated = {name: value for name, value in meta_mae.config.items() if name != "norm_layer"}
    (tmp_path / "config.json").write_text(json.dumps(stated))
    save_file(meta_mae.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    conversion = convert(str(tmp_path))
    assert conversion.model.config.num_heads == [2, 4, 8, 16]
    assert conversion.license == "mit"
    assert convert(str(tmp_path), license_name="other").license == "other"
    stated |= {"decoder_num_heads": 4, "mask_unit_attn": [True, False, False, False]}
    (tmp_path / "config.json").write_text(json.dumps(stated))
    config = convert(str(tmp_path)).model.config
    assert (config.decoder_num_heads, config.masked_unit_attention) == (4, [True, False, False, False])


def test_timm_classifier_gives_timms_logits(tmp_path):
    theirs = timm_model(num_classes=5).eval()
    torch.save(theirs.state_dict(), tmp_path / "timm.pth")
    ours = convert(str(tmp_path / "timm.pth"), num_heads=2).model.eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(ours(images).logits, theirs(images), atol=1e-5)


def test_timm_mae_is_the_encoder_alone_and_says_so(tmp_path):
    source = tmp_path / "timm.pth"
    torch.save(timm_model(num_classes=0).state_dict(), source)
    conversion = convert(str(source), num_heads=2)
    said = report(conversion)
    assert "Only the encoder is in the source" in said
    assert "head.norm.weight" in conversion.left_out
    save(conversion, tmp_path / "out")
    _, info = HieraModel.from_pretrained(tmp_path / "out", add_pooling_layer=False, output_loading_info=True)
    assert not any(info.values())
    classifier = HieraMAEForImageClassification.from_pretrained(tmp_path / "out", num_labels=2)
    assert classifier.config.num_query_pool == 3


@pytest.mark.parametrize("build", [tiny_mae, tiny_classifier])
def test_a_stock_folder_is_taken_as_it_is(build, tmp_path):
    build().save_pretrained(tmp_path / "stock")
    conversion = convert(str(tmp_path / "stock"))
    for name, weight in build().state_dict().items():
        assert torch.equal(conversion.model.state_dict()[name], weight)
    save(conversion, tmp_path / "out")
    first, second = (
        json.loads((tmp_path / folder / "config.json").read_text()) for folder in ("stock", "out")
    )
    assert first == second


@pytest.mark.slow
def test_a_published_size_needs_no_heads(hiera, tmp_path):
    source = write_pth(hiera.hiera_tiny_224(), tmp_path / "hiera_tiny_224.pth")
    conversion = convert(source)
    assert conversion.model.config.size_name == "tiny"
    assert conversion.model.config.image_size == [224, 224]


def test_what_does_not_fit_is_refused(meta_mae, hiera, tmp_path, capsys):
    source = write_pth(meta_mae, tmp_path / "mae.pth")
    with pytest.raises(ValueError, match="none of the published sizes.*--num-heads"):
        convert(source)
    with pytest.raises(FileNotFoundError, match="There is no nowhere.pth"):
        convert("nowhere.pth")
    with pytest.raises(SystemExit) as stopped:
        main(["nowhere.pth", str(tmp_path / "out")])
    assert stopped.value.code == 2
    assert "There is no nowhere.pth" in capsys.readouterr().err

    damaged = dict(meta_mae.state_dict())
    del damaged["blocks.1.attn.qkv.weight"]
    damaged["blocks.1.attn.extra"] = torch.zeros(1)
    torch.save(damaged, tmp_path / "damaged.pth")
    with pytest.raises(ValueError, match="do not fill.*qkv.weight is absent.*no place for.*extra"):
        convert(str(tmp_path / "damaged.pth"), num_heads=2)

    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="not a Hiera"):
        convert(str(tmp_path / "other.pth"))
    torch.save({"pos_embed_spatial": torch.zeros(2)}, tmp_path / "video.pth")
    with pytest.raises(ValueError, match="a video Hiera"):
        convert(str(tmp_path / "video.pth"))
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="not a table of weights"):
        convert(str(tmp_path / "list.pth"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds none of model.safetensors"):
        convert(str(tmp_path / "empty"))
    windowed = {"patch_embed.proj.weight": torch.zeros(8, 3, 7, 7), "pos_embed": torch.zeros(1, 8, 7, 7)}
    torch.save(windowed, tmp_path / "abswin.pth")
    with pytest.raises(ValueError, match="abswin models are other architectures"):
        convert(str(tmp_path / "abswin.pth"))


def test_pickles_are_never_executed(tmp_path):
    class Executes:
        def __reduce__(self):
            return (exec, ("raise SystemExit",))

    torch.save({"model_state": Executes()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="could run code"):
        convert(str(tmp_path / "evil.pth"))


def test_a_file_that_is_no_checkpoint_is_said_to_be_none(tmp_path):
    (tmp_path / "page.pth").write_text("<html>not found</html>")
    with pytest.raises(ValueError, match="page.pth is damaged"):
        convert(str(tmp_path / "page.pth"))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod."])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_wrappers_prefix_is_taken_off_and_half_is_widened(meta_mae, tmp_path, prefix, dtype):
    weights = {prefix + name: weight.to(dtype) for name, weight in meta_mae.state_dict().items()}
    torch.save({"model_state": weights}, tmp_path / "wrapped.pth")
    torch.save({"state_dict": meta_mae.to(dtype).state_dict()}, tmp_path / "plain.pth")
    meta_mae.to(torch.float32)
    wrapped, plain = (convert(str(tmp_path / name), num_heads=2) for name in ("wrapped.pth", "plain.pth"))
    assert wrapped.model.dtype == torch.float32 and wrapped.mapped == plain.mapped
    for name, weight in plain.model.state_dict().items():
        assert torch.equal(wrapped.model.state_dict()[name], weight)


def test_nan_weights_and_pointers_are_refused(meta_mae, tmp_path, capsys):
    weights = {name: weight.clone() for name, weight in meta_mae.state_dict().items()}
    weights["mask_token"][..., :3] = float("nan")
    torch.save(weights, tmp_path / "nan.pth")
    (tmp_path / "pointer.pth").write_text("version https://git-lfs.github.com/spec/v1\n")
    for name, message in (("nan.pth", "mask_token holds 3 values that are NaN"), ("pointer.pth", "Git LFS")):
        with pytest.raises(SystemExit) as end:
            main([str(tmp_path / name), str(tmp_path / "out"), "--num-heads", "2"])
        assert end.value.code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_blocks_that_are_not_counted_through_are_refused(meta_mae, tmp_path):
    """One number far off would ask for as many blocks."""
    weights = {name.replace("blocks.4.", "blocks.999999999."): w for name, w in meta_mae.state_dict().items()}
    torch.save(weights, tmp_path / "far.pth")
    with pytest.raises(ValueError, match="blocks are numbered"):
        convert(str(tmp_path / "far.pth"), num_heads=2)


def test_weights_with_transformers_names_are_told_what_to_do(tmp_path):
    for prefix in ("", "module."):
        table = {prefix + name: weight for name, weight in tiny_mae().state_dict().items()}
        torch.save({"model_state": table}, tmp_path / "dp.pth")
        with pytest.raises(ValueError, match=r"has transformers' names already.*pytorch_model\.bin"):
            convert(str(tmp_path / "dp.pth"))


def test_a_conversion_goes_into_a_folder_of_its_own(tmp_path, capsys):
    folder = tmp_path / "stock"
    tiny_mae().save_pretrained(folder)
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(SystemExit):
        main([str(folder), str(folder)])
    assert "is the source itself" in capsys.readouterr().err
    assert (folder / "model.safetensors").read_bytes() == before and not (folder / "README.md").exists()
    (tmp_path / "stage").mkdir()
    (tmp_path / "stage" / "metrics.json").write_text("{}")
    with pytest.raises(SystemExit):
        main([str(folder), str(tmp_path / "stage")])
    assert "holds a stage: its metrics.json and card would speak of weights" in capsys.readouterr().err
    assert not (tmp_path / "stage" / "model.safetensors").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("mine")
    for library in ("transformers", "timm"):
        with pytest.raises(SystemExit):
            main([str(folder), str(tmp_path / "mine"), "--to", library])
        assert "holds README.md; nothing is overwritten" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["README.md"]


HOSTILE = "a: b --- # x <script>alert(1)</script> `|"


def test_names_from_outside_do_not_change_the_card(meta_mae, tmp_path):
    (tmp_path / "<script>`x`.pth").write_bytes(b"")
    source = write_pth(meta_mae, tmp_path / "<script>`x`.pth")
    save(convert(source, num_heads=2, license_name=HOSTILE), tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    _, metadata, body = card.split("---\n", 2)
    assert yaml.safe_load(metadata)["license"] == HOSTILE
    with pytest.raises(ValueError, match="wanted one line"):
        convert(source, num_heads=2, license_name="mit\n---\n# x")
    assert "<script>" not in body and "\n---" not in body
    assert [line for line in body.splitlines() if line.startswith("#")] == [
        "# Hiera  masked autoencoder (encoder and decoder)"
    ]
