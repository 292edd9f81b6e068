"""DirectCLR (arXiv 2110.09348)."""

from jaxtyping import Float
from torch import Tensor, nn

from ssl_lightning.data.batch import Batch
from ssl_lightning.data.draw import Draw
from ssl_lightning.errors import UserError
from ssl_lightning.losses.contrastive import info_nce_terms
from ssl_lightning.losses.gather import Gather
from ssl_lightning.methods.method import Objective, SSLMethod
from ssl_lightning.models.backbones import num_features_of
from ssl_lightning.models.projectors import default_rank
from ssl_lightning.optim.recipe import OptimizerRecipe
from ssl_lightning.ranges import Count, Temperature


class DirectCLR(SSLMethod):
    """Contrast the first `d0` channels of the representation directly, without a trainable projector.

    The other channels get no gradient of their own; they learn because the last block adds its input unchanged.
    A backbone without that identity shortcut is refused: its other channels would stay a random projection. What
    follows the block may act on each channel alone, or normalise (a wide ResNet's BatchNorm and ReLU, a vision
    transformer's LayerNorm): only a trainable mixture of channels would end the path.
    Both views go through the backbone in one pass (the released code makes one pass a view).

    Args:
        d0: length of the sub-vector; None means 0.176·D, the best published share (360 of 2048).
        temperature: τ > 0.
    """

    min_images = 2

    def __init__(
        self,
        backbone: nn.Module,
        d0: Count | None = None,
        temperature: Temperature = 0.1,
        optimizer: OptimizerRecipe | None = None,
    ) -> None:
        super().__init__(optimizer)
        self.backbone = backbone
        num_features = num_features_of(backbone)
        if not getattr(backbone, "has_identity_shortcut", False):
            raise UserError(
                "backbone: DirectCLR needs a backbone whose last block adds its input unchanged to the "
                "representation, because the channels outside the sub-vector learn only through that identity "
                "shortcut. This backbone's last block changes the shape of its input, or ends in a trainable layer, "
                "or is none that is known to do neither. Use backbone=resnet_tiny, resnet18, resnet34, resnet50, "
                "wide_resnet (of depth 16 or more) or vit_tiny, or method=simclr."
            )
        if d0 is not None and not 1 <= d0 <= num_features:
            raise UserError(
                f"method.d0 is {d0}, but the representation has {num_features} channels. "
                f"Set method.d0 between 1 and {num_features}, or to null for {default_rank(num_features)}."
            )
        self.d0 = default_rank(num_features) if d0 is None else d0
        self.temperature = temperature

    def project(self, representations: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
        return representations[:, : self.d0]

    def watched(self, r: Float[Tensor, "n d"], z: Float[Tensor, "n e"]) -> dict[str, Float[Tensor, "n _d"]]:
        """`z` is `r_d0`, the channels that are contrasted; `r_rest` are those after them, where there are any."""
        parts = {"r": r, "z": z, "r_d0": z, "r_rest": r[:, self.d0 :]}
        return {name: features for name, features in parts.items() if features.shape[1]}

    def ssl_loss(self, batch: Batch, gather: Gather, draw: Draw) -> Objective:
        representations, embeddings = self.encode(batch.views, draw)
        terms = info_nce_terms(embeddings, self.temperature, gather)
        return Objective(terms.mean(), representations, embeddings, image_losses=terms.of_images())
