"""Vision transformer (arXiv 2010.11929), small. Parameter names are timm's."""

from collections import OrderedDict

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, scaled_dot_product_attention

from ssl_lightning.errors import UserError
from ssl_lightning.ranges import Count


class Attention(nn.Module):
    """Every token looks at every token, in `heads` parts of its channels."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Float[Tensor, "n t d"]) -> Float[Tensor, "n t d"]:
        q, k, v = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention, then two layers at each token; each is added to its input, of which it sees the LayerNorm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        layers = {"fc1": nn.Linear(width, 4 * width), "act": nn.GELU(), "fc2": nn.Linear(4 * width, width)}
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, tokens: Float[Tensor, "n t d"]) -> Float[Tensor, "n t d"]:
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class Patches(nn.Module):
    """A linear map of square patches."""

    def __init__(self, patch_size: int, channels: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch_size, patch_size)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        return self.proj(images)


class VisionTransformer(nn.Module):
    """Transformer on patches up to the mean over tokens, without class token; small by default. D = `width`.

    Args:
        image_size: side in pixels of the images for which there are positions. At other sides, positions are
            resampled.
        channels: channels of the images.
        patch_size: side in pixels.
        width: channels of a token.
        depth: number of blocks.
        heads: of the attention.

    `has_identity_shortcut`: blocks add to the residual stream, and between it and the representation stands a
    LayerNorm alone. It scales each channel; only its mean and deviation are common to channels.

    Raises:
        UserError: images are no whole number of patches, or width is no multiple of heads.
    """

    has_identity_shortcut = True

    def __init__(
        self,
        image_size: Count = 32,
        channels: Count = 3,
        patch_size: Count = 4,
        width: Count = 96,
        depth: Count = 6,
        heads: Count = 3,
    ) -> None:
        super().__init__()
        if width % heads:
            raise UserError(
                f"backbone.width is {width}, which {heads} heads cannot share. Choose a multiple of backbone.heads."
            )
        self.image_size, self.patch_size, self.num_features, self.heads = image_size, patch_size, width, heads
        self._check(image_size, "dataset.image_size")
        self.patch_embed = Patches(patch_size, channels, width)
        side = image_size // patch_size
        self.pos_embed = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, side * side, width), std=0.02))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, images: Float[Tensor, "n c s s"]) -> Float[Tensor, "n d"]:
        self._check(images.shape[-1], "The side of a view")
        tokens = self.patch_embed(images)
        tokens = tokens.flatten(2).transpose(1, 2) + self._positions(tokens.shape[-1])
        return self.norm(self.blocks(tokens)).mean(1)

    def _positions(self, side: int) -> Float[Tensor, "1 t d"]:
        """Of side × side patches."""
        own = self.image_size // self.patch_size
        if side == own:
            return self.pos_embed
        grid = self.pos_embed.transpose(1, 2).unflatten(2, (own, own))
        return interpolate(grid, (side, side), mode="bicubic", antialias=True).flatten(2).transpose(1, 2)

    def _check(self, side: int, what: str) -> None:
        if side < self.patch_size or side % self.patch_size:
            raise UserError(
                f"{what} is {side} pixels, which is no whole number of patches of {self.patch_size}. Choose a "
                "backbone.patch_size that divides it, or another size."
            )
