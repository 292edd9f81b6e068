"""What methods with a projector have in common."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from ssl_lightning.methods.method import SSLMethod
from ssl_lightning.models.backbones import num_features_of
from ssl_lightning.models.projectors import num_outputs_of
from ssl_lightning.optim.recipe import OptimizerRecipe


class Projected(SSLMethod):
    """A backbone and a projector.

    Args:
        projector: called with D, returns the head between representation and loss.
    """

    min_images = 2

    def __init__(
        self, backbone: nn.Module, projector: Callable[[int], nn.Module], optimizer: OptimizerRecipe | None = None
    ) -> None:
        super().__init__(optimizer)
        self.backbone = backbone
        num_features = num_features_of(backbone)
        self.projector = projector(num_features)
        self.embedding_length = num_outputs_of(self.projector, num_features)

    def project(self, representations: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
        return self.projector(representations)
