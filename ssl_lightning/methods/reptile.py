"""Reptile (Nichol et al. 2018, arXiv 1803.02999), on mini-batch tasks: what GeSSL's meta-updates are compared with."""

from ssl_lightning.methods.gessl import GeSSL
from ssl_lightning.methods.method import SSLMethod
from ssl_lightning.optim.recipe import OptimizerRecipe
from ssl_lightning.ranges import Count, Positive


class Reptile(GeSSL):
    """The outer gradient is (θ − θ̃)/α, the mean over tasks of where `steps` steps of SGD on the task's loss lead; it
    is the gradient of ‖θ̃ − θ‖²/2α, with θ̃ held fixed, and for one step that of the loss itself.

    Args:
        base: the method whose loss is minimised.
        tasks: mini-batches of a batch.
        steps: k of SGD on each.
        inner_lr: α.
    """

    def __init__(
        self,
        base: SSLMethod,
        tasks: Count = 2,
        steps: Count = 2,
        inner_lr: Positive = 0.05,
        optimizer: OptimizerRecipe | None = None,
    ) -> None:
        super().__init__(
            base,
            tasks,
            inner_steps=0,
            inner_lr=inner_lr,
            future_steps=steps,
            weight_base=0.0,
            weight_meta=1 / inner_lr,
            match="parameters",
            optimizer=optimizer,
        )
