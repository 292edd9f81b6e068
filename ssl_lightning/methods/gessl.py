"""GeSSL-style meta-updates (after arXiv 2405.01053 v4 and bootstrapped meta-learning, arXiv 2109.04504).

The paper states its scheme in words; the equations here are this project's specification, so results must be called
"GeSSL-style". For task l, one mini-batch with views V_l, and the base method's loss ℓ:

    θ_l^0 = θ,  θ_l^{k+1} = θ_l^k − α ∇ℓ(θ_l^k; V_l)           K inner steps
    θ̃_l = λ further first-order steps from θ_l^K, detached      the future target
    𝓛 = w_base · mean_l ℓ(θ; V_l) + w_meta · mean_l match(θ_l^K, θ̃_l)

with match = KL(π_θ̃ ‖ π_θ^K), where π classifies the mini-batch's images by similarity, or ½‖θ̃ − θ^K‖².
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ssl_lightning.data.batch import Batch
from ssl_lightning.data.batches import check_batches
from ssl_lightning.data.draw import Draw
from ssl_lightning.errors import UserError
from ssl_lightning.losses.gather import Gather
from ssl_lightning.losses.matching import Prediction, matching_kl
from ssl_lightning.methods.elsewhere import (
    Elsewhere,
    Parameters,
    WithGradient,
    gradient_of,
    leaves_of,
    of_batch_norm,
    update_batch_norm,
)
from ssl_lightning.methods.method import Objective, SSLMethod, detached, joined
from ssl_lightning.optim.recipe import OptimizerRecipe, ParameterGroup
from ssl_lightning.ranges import Count, NonNegative, Number, Positive, Temperature


class _Task(NamedTuple):
    """What one task contributes, without gradients: the base objective at θ, the meta loss, and BatchNorm's buffers
    as the pass at θ left them."""

    base: Objective
    meta: Tensor
    buffers: dict[str, Tensor]


class GeSSL(SSLMethod):
    """Wraps any other method: its loss, plus agreement of an adapted model with its own future.

    The batch is split into `tasks` mini-batches; negatives are those of the task, so nothing is communicated inside
    a task, and 2 processes with M tasks each equal one with 2M tasks (but for BatchNorm's statistics).

    Args:
        base: the method whose loss is minimised.
        tasks: M.
        inner_steps: K.
        inner_lr: α.
        future_steps: λ.
        weight_base: w_base.
        weight_meta: w_meta. Without meta loss nothing is adapted.
        match: `kl` of the mini-batch classifications, or squared distance of `parameters`.
        match_views: match on the `same` views, or adapt on the first half of the views and match on the `fresh`
            second half.
        order: gradients of the meta loss at θ^K are applied to θ (`first`) or taken through the inner steps
            (`second`).
        temperature: τ of π.
    """

    min_images = 2  # the others are the classes of a task
    weighs_images = False  # its gradient is that of tasks, and comes with the loss

    def __init__(
        self,
        base: SSLMethod,
        tasks: Count = 2,
        inner_steps: Number = 1,
        inner_lr: Positive = 0.05,
        future_steps: Number = 1,
        weight_base: NonNegative = 1.0,
        weight_meta: NonNegative = 1.0,
        match: Literal["kl", "parameters"] = "kl",
        match_views: Literal["same", "fresh"] = "same",
        order: Literal["first", "second"] = "first",
        temperature: Temperature = 0.2,
        optimizer: OptimizerRecipe | None = None,
    ) -> None:
        super().__init__(optimizer)
        if isinstance(base, GeSSL):
            raise UserError(
                f"method.base is {type(base).__name__}, whose loss comes with its gradient and cannot be taken at "
                "other weights, as inner steps take it. Choose another method.base, such as simclr, and more "
                "method.inner_steps."
            )
        self.base = base
        self.classifies, self.accumulates, self.needs_length = base.classifies, base.accumulates, base.needs_length
        self.has_image_losses = base.has_image_losses
        self.tasks = tasks
        self.inner_steps = inner_steps
        self.inner_lr = inner_lr
        self.future_steps = future_steps
        self.weight_base = weight_base
        self.weight_meta = weight_meta
        self.match = match
        self.match_views = match_views
        self.second_order = order == "second"
        self.temperature = temperature
        self.gradient_evaluations = self._gradient_evaluations()

    @property
    def backbone(self) -> nn.Module:  # type: ignore[override]
        """That of the base."""
        return self.base.backbone

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if self.trainer.precision == "16-mixed":
            raise UserError(
                "trainer.precision is 16-mixed, in which gradients of inner steps fall below the smallest number: only "
                "the outer loss is scaled. Choose bf16-mixed or 32-true."
            )

    def _gradient_evaluations(self) -> float:
        """Forward passes of all views count 1/3, and what the base does besides, backward passes 2/3, those through an
        inner step 2."""
        forward, backward = 1 / 3 + self.base.gradient_evaluations - 1, 2 / 3
        share = 0.5 if self.match_views == "fresh" else 1.0  # of the views that are adapted on
        if self.weight_meta == 0:
            return share * self.base.gradient_evaluations
        inner, future = self.inner_steps, self.future_steps
        adapting = forward + inner + max(future - 1, 0)
        adapting += backward if future or not inner else 0.0  # the first future step, or else the base gradient
        adapting += 2 * inner if self.second_order else 0.0
        if self.match == "parameters":
            return share * adapting
        matching = backward + (forward if future else 0.0)
        if self.match_views == "fresh":
            matching = 0.5 * (matching + forward)
        return share * adapting + matching

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        return self.base(images)

    def project(self, representations: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
        return self.base.project(representations)

    def watched(self, r: Float[Tensor, "n d"], z: Float[Tensor, "n e"]) -> dict[str, Float[Tensor, "n _d"]]:
        return self.base.watched(r, z)

    def compile_networks(self, mode: str | None) -> None:
        if mode:
            raise UserError(
                f"compile is {mode}, but inner steps of method=gessl call the networks with other weights, and "
                "order=second takes gradients of gradients: neither is compiled. Choose compile=null."
            )

    def predictions(self, objective: Objective) -> Prediction:
        return self.base.predictions(objective)

    def after_step(self, objective: Objective, gather: Gather, progress: float) -> None:
        self.base.after_step(objective, gather, progress)

    def choose_images(self, positions: Int[Tensor, " m"], validation: Bool[Tensor, " n"]) -> None:
        self.base.choose_images(positions, validation)

    def parameter_groups(self) -> list[ParameterGroup]:
        return self.base.parameter_groups()

    def ssl_loss(self, batch: Batch, gather: Gather, draw: Draw) -> Objective:
        num_images = len(batch.index)
        check_batches(num_images, (1, 1), self)  # of whatever loader
        size = num_images // self.tasks
        parts = [slice(i, i + size) for i in range(0, num_images, size)]
        named = {name: p for name, p in self.base.named_parameters() if p.requires_grad}
        tasks: list[_Task] = []
        total: list[Tensor] = []  # G, the gradient of 𝓛
        for number, part in enumerate(parts):
            task, gradient = self._task(named, batch.part(part), draw.part(number))
            tasks.append(task)
            if total:
                torch._foreach_add_(total, gradient)
            else:
                total = gradient
            del gradient  # while the next task is at work, only the sum is held
        update_batch_norm(self.base, [task.buffers for task in tasks])
        base = torch.stack([task.base.loss for task in tasks]).mean()
        meta = torch.stack([task.meta for task in tasks]).mean()
        loss = self.weight_base * base + self.weight_meta * meta
        scalars = {"base_loss": base, "meta_loss": meta}
        return joined([task.base for task in tasks], WithGradient.apply(loss, total, *named.values()), scalars)

    def _task(self, named: Mapping[str, Tensor], batch: Batch, draw: Draw) -> tuple[_Task, list[Tensor]]:
        """Its outcome, and its part of the gradient of 𝓛."""
        at = Elsewhere(self.base, list(named), draw, twice=self.second_order)
        theta = list(named.values())

        def step(point: Parameters, direction: Parameters) -> list[Tensor]:
            return list(torch._foreach_add(list(point), list(direction), alpha=-self.inner_lr))

        adapt_on, match_on = self._halves(batch) if self.match_views == "fresh" else (batch, batch)
        objective, clones = at.objective(theta, adapt_on)
        if self.weight_meta == 0:
            outcome = _Task(detached(objective), objective.loss.new_zeros(()), of_batch_norm(self.base, clones))
            return outcome, self._weighted(gradient_of(objective.loss, theta), None)

        # Inner steps. The first one's gradient is the base gradient at θ: the base term costs nothing more.
        base, base_gradient, point = detached(objective), None, list(theta)
        for _ in range(self.inner_steps):
            direction = gradient_of(objective.loss, point, differentiable=self.second_order)
            base_gradient = base_gradient or [g.detach() for g in direction]
            point = step(point, direction)
            if not self.second_order:
                point = leaves_of(point)
            objective, _ = at.objective(point, adapt_on)

        # The future target. One pass at θ^K gives its first step and the prediction to be matched.
        future = [p.detach() for p in point]
        if self.future_steps or base_gradient is None:
            direction = gradient_of(objective.loss, point, again=True)
            base_gradient = base_gradient or direction
            if self.future_steps:
                future = step(future, [g.detach() for g in direction])
        for _ in range(self.future_steps - 1):
            ahead = leaves_of(future)
            future = step(future, gradient_of(at.objective(ahead, adapt_on)[0].loss, ahead))

        if self.match == "parameters":
            meta = torch.stack([((p - f) ** 2).sum() for p, f in zip(point, future, strict=True)]).sum() / 2
        else:
            fresh = self.match_views == "fresh"
            prediction = self.base.predictions(at.objective(point, match_on)[0] if fresh else objective)
            target = prediction
            if self.future_steps:
                with torch.no_grad():
                    target = self.base.predictions(at.objective(future, match_on)[0])
            meta = matching_kl(prediction, target, self.temperature)
        outer = theta if self.second_order else point
        outcome = _Task(base, meta.detach(), of_batch_norm(self.base, clones))
        return outcome, self._weighted(base_gradient, gradient_of(meta, outer))

    def _weighted(self, base: list[Tensor], meta: list[Tensor] | None) -> list[Tensor]:
        """What the gradients of a task's losses add to that of 𝓛."""
        weighted = torch._foreach_mul(base, self.weight_base / self.tasks)
        if meta is not None:
            torch._foreach_add_(weighted, meta, alpha=self.weight_meta / self.tasks)
        return list(weighted)

    def _halves(self, batch: Batch) -> tuple[Batch, Batch]:
        """The first and the second half of the views of each size."""
        if any(len(views) % 2 or len(views) < 4 for views in batch.views):
            raise UserError(
                f"method.match_views=fresh needs an even number of at least 4 views of a size, of which the second "
                f"half is for matching; augment.views gives {', '.join(str(len(views)) for views in batch.views)}. "
                "Set copies: 4 in the augmentation."
            )
        first, second = zip(*(views.chunk(2) for views in batch.views), strict=True)
        return batch._replace(views=first), batch._replace(views=second)
