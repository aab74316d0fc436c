"""What a sharded model (FSDP2) is given, where accelerate's own policy would round it.

Stands beside the Trainer, which calls it before the model is sharded.
"""

import dataclasses

from accelerate.utils import FullyShardedDataParallelPlugin


def keep_float32_inputs(plugin: FullyShardedDataParallelPlugin) -> None:
    """Leave a sharded model's inputs as they are; with bf16, FSDP2 would round them first.

    Images are also the targets of the masked autoencoder's loss, and two numbers of a mask's noise that are
    equal in bf16 would mask other units than the run's seed says. The patch embedding takes images of any
    floating-point type.

    Args:
        plugin: accelerate's; FSDP1, and a model without mixed precision, stay as they are.
    """
    if plugin.fsdp_version == 2 and plugin.mixed_precision_policy is not None:
        plugin.mixed_precision_policy = dataclasses.replace(
            plugin.mixed_precision_policy, cast_forward_inputs=False
        )
