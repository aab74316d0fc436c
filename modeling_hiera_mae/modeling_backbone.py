"""The encoder as a backbone of detectors and segmenters: HieraMAEBackbone, maps of features at four scales.

Stands on modeling_hiera, beside the masked autoencoder. Whatever of transformers takes a `backbone_config`
(DETR, UperNet, Mask2Former) takes a HieraMAEBackboneConfig.
"""

import torch
from torch import nn
from transformers.backbone_utils import BackboneMixin
from transformers.modeling_outputs import BackboneOutput
from transformers.utils import logging
from transformers.utils.generic import can_return_tuple

from .checkpoint_config import as_ours
from .configuration_hiera_mae import HieraMAEBackboneConfig, HieraMAEConfig
from .layers import HieraMAEEmbeddings
from .masking import check_pixel_values
from .modeling_hiera import HieraMAEEncoder, stock_hidden_states, wants_attentions
from .pretrained import HieraMAEPreTrainedModel

logger = logging.get_logger(__name__)


class HieraMAEBackbone(BackboneMixin, HieraMAEPreTrainedModel):
    """Feature maps of whole images, in the image's order, each normalized by a layer of its own.

    "stem" and "stage1" have a stride of 4 pixels, "stage2" to "stage4" of 8, 16 and 32. Weights have the
    names of transformers' HieraBackbone, which does not unroll tokens before its stages: its mask units are
    not those that the weights were trained with.

    Args:
        config: the geometry, and which maps are returned (`out_features` or `out_indices`); a plain
            HieraMAEConfig becomes a HieraMAEBackboneConfig.
    """

    new_weights = ("hidden_states_norms.",)
    _keys_to_ignore_on_load_unexpected = [
        r"^classifier\.",
        r"^decoder\.",
        r"^encoder_norm\.",
        r"^multiscale_fusion\.",
        r"^pooler\.",
    ]

    def __init__(self, config: HieraMAEConfig) -> None:
        if not isinstance(config, HieraMAEBackboneConfig):
            logger.warning(
                "A HieraMAEBackbone is made from a HieraMAEConfig. A detector that holds that one is saved "
                "with model type 'hiera', and then loaded with transformers' HieraBackbone, whose feature "
                "maps are not in the image's order: give a detector a HieraMAEBackboneConfig."
            )
        super().__init__(self.own_config(config))
        widths = [
            int(self.config.embed_dim * self.config.embed_dim_multiplier**stage)
            for stage in range(len(self.config.depths))
        ]
        self.num_features = [self.config.embed_dim, *widths]
        self.embeddings = HieraMAEEmbeddings(self.config)
        self.encoder = HieraMAEEncoder(self.config)
        self.hidden_states_norms = nn.ModuleDict(
            {name: nn.LayerNorm(width) for name, width in zip(self.out_features, self.channels, strict=True)}
        )
        self.post_init()

    @classmethod
    def own_config(cls, config: HieraMAEConfig) -> HieraMAEConfig:
        """A copy under the backbone's own model type, with the poolings of one."""
        config = as_ours(config)
        chosen = config.for_class("HieraBackbone")
        own = HieraMAEBackboneConfig.from_dict(chosen.to_dict())
        own._attn_implementation = config._attn_implementation
        return own

    @can_return_tuple  # type: ignore[untyped-decorator]  # transformers gives it no type
    def forward(
        self,
        pixel_values: torch.Tensor,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        *,
        interpolate_pos_encoding: bool | None = None,
    ) -> BackboneOutput:
        """Map images to features.

        Args:
            pixel_values: (batch, channels, height, width), normalized; whole mask units (multiples of 32
                pixels).
            output_hidden_states: return the embeddings and every stage's output too, in transformers' order.
            output_attentions: return weights of each stage's last block (the "eager" path).
            interpolate_pos_encoding: see HieraMAEModel.

        Returns:
            transformers' BackboneOutput; `feature_maps` are (batch, channels, height / stride, width /
            stride), one for each of `out_features`.

        Raises:
            ValueError: pixel_values do not fit.
        """
        wants_states = (
            self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        )
        check_pixel_values(self.config, pixel_values, interpolate_pos_encoding)
        tokens = self.embeddings(pixel_values)
        encoded = self.encoder(
            tokens, range(len(self.config.depths)), wants_attentions(self.config, output_attentions)
        )
        states, maps = stock_hidden_states(self.config, tokens, encoded, pixel_values, None)
        named = dict(zip(self.stage_names, maps, strict=True))
        return BackboneOutput(
            feature_maps=tuple(
                self.hidden_states_norms[name](named[name]).permute(0, 3, 1, 2).contiguous()
                for name in self.out_features
            ),
            hidden_states=states if wants_states else None,
            attentions=encoded.attentions,
        )
