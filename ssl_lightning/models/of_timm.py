"""Networks of timm as backbones."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import torch
from torch import nn

from ssl_lightning.errors import UserError
from ssl_lightning.explaining import in_one_line
from ssl_lightning.ranges import Count

WEIGHTS = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")
"""Arguments of `timm.create_model` that would read weights: a run starts from random ones, or from `init`."""
OURS = {"num_classes": "null", "in_chans": "backbone.channels", "img_size": "backbone.image_size"}


def timm_network(
    architecture: str, image_size: Count = 32, channels: Count = 3, arguments: Mapping[str, Any] | None = None
) -> nn.Module:
    """A network of timm with random weights, up to its pooled features.

    Its parameters keep timm's names. Beside what it has of its own, it says its `num_features`, D;
    `has_identity_shortcut`; and `timm_arguments`, with which timm makes it again.

    Args:
        architecture: timm's name, without a tag of weights.
        image_size: side in pixels; networks of one size, such as vision transformers, are made for it.
        channels: channels of the images.
        arguments: more of the network's own; plain values.

    Raises:
        UserError: timm is not installed, does not know the name or an argument, or the network has no features [N, D].
    """
    try:
        import timm
    except ImportError:
        raise UserError("backbone=timm needs timm: pip install 'ssl-lightning[timm]'") from None
    name = architecture.partition(".")[0]
    if not timm.is_model(name) or name != architecture:
        near = " or ".join(get_close_matches(name, timm.list_models(), 3)) or "one that timm.list_models() gives"
        raise UserError(
            f"backbone.architecture is {architecture!r}, which is no network of timm's, named without a tag of "
            f"weights. Choose {near}."
        )
    given = {"num_classes": 0, "in_chans": channels, **_checked(arguments or {})}
    if getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False):
        given["img_size"] = image_size
    try:
        network: Any = timm.create_model(name, **given)
        num_features = _num_features(network, channels, image_size)
    except Exception as error:  # of many kinds
        raise UserError(
            f"backbone=timm: {architecture} cannot be made for {channels} channels of {image_size}×{image_size} pixels "
            f"with arguments {dict(arguments or {})}: {in_one_line(error)}. Choose another backbone.architecture or "
            "backbone.arguments, such as a smaller patch_size."
        ) from error
    network.num_features = num_features
    network.has_identity_shortcut = _has_identity_shortcut(network)
    network.timm_arguments = {"model_name": name, **given}
    return network


def _checked(arguments: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in arguments.items():
        if key in WEIGHTS:
            raise UserError(
                f"backbone.arguments.{key} would read weights, which a run's config must not. Remove it; init=<file> "
                "starts from other weights."
            )
        if key in OURS:
            raise UserError(f"backbone.arguments.{key} is set already. Remove it, and set {OURS[key]} instead.")
        plain = value if isinstance(value, list) else [value]
        if not all(type(item) in (bool, int, float, str, type(None)) for item in plain):
            raise UserError(f"backbone.arguments.{key} is {value!r}. Give a number, a word, or a list of these.")
    return dict(arguments)


@torch.no_grad()
def _num_features(network: nn.Module, channels: int, side: int) -> int:
    """Of an image of zeros: what a network says of its own may be the length before its last layers."""
    found = network.eval()(torch.zeros(1, channels, side, side))
    network.train()
    if not isinstance(found, torch.Tensor) or found.ndim != 2:
        shape = list(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        raise ValueError(f"of an image it gives {shape}, and not [1, D].")
    return found.shape[1]


def _has_identity_shortcut(network: Any) -> bool:
    """Whether the last block's input is added unchanged to what is pooled, with no trainable mixture of channels after
    it. Known of ResNets, and of vision transformers, whose residual stream meets a LayerNorm alone; else no."""
    from timm.models.resnet import ResNet
    from timm.models.vision_transformer import VisionTransformer

    if isinstance(network, ResNet):
        stage: Any = network.layer4
        return stage[-1].downsample is None
    return isinstance(network, VisionTransformer) and network.attn_pool is None
