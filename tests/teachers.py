"""Tiny teachers with random weights, in folders as transformers and timm write them."""

import json

import timm
import torch
from safetensors.torch import save_file
from transformers import ResNetConfig, ResNetModel, ViTConfig, ViTImageProcessor, ViTModel


def write_vit(folder, image_size=32, patch_size=8, **fields):
    torch.manual_seed(3)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        image_size=image_size, patch_size=patch_size, **fields,
    )  # fmt: skip
    return write(ViTModel(config), folder, image_size)


def write_resnet(folder, image_size=64):
    torch.manual_seed(3)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    return write(ResNetModel(config), folder, image_size)


def write_timm(folder, name="test_efficientnet", image_size=128):
    torch.manual_seed(3)
    model = timm.create_model(name, pretrained=False)
    folder.mkdir(parents=True)
    tensors = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    pretrained = {key: model.pretrained_cfg[key] for key in ("input_size", "mean", "std")}
    pretrained["input_size"] = [3, image_size, image_size]
    config = {
        "architecture": name, "num_classes": 1000, "num_features": model.num_features,
        "pretrained_cfg": pretrained,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write(model, folder, image_size, mean=0.5, std=0.5):
    """A model's folder with an image processor."""
    model.save_pretrained(folder)
    ViTImageProcessor(
        size={"height": image_size, "width": image_size}, image_mean=[mean] * 3, image_std=[std] * 3
    ).save_pretrained(folder)
    return folder


def write_card(folder, **metadata):
    lines = [f"{key}: {json.dumps(value)}" for key, value in metadata.items()]
    (folder / "README.md").write_text("\n".join(["---", *lines, "---", "# A teacher"]))
    return folder
