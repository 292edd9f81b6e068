"""Views of two sizes in methods: one pass a size, in GeSSL too, and through the trainer."""

import pytest
import torch
from torch.func import functional_call

from ssl_lightning.data.draw import Draw
from ssl_lightning.data.views import Augment, View
from ssl_lightning.losses.gather import LOCAL
from ssl_lightning.methods.gessl import GeSSL
from ssl_lightning.methods.supervised import Supervised
from ssl_lightning.optim.recipe import OptimizerRecipe
from tests.callbacks import fitting
from tests.methods.examples import Dropout, Pooled, Swapped
from tests.methods.networks import batch_of, gradients, tiny_simclr, tiny_views

TWO_SIZES = Augment(
    [View(copies=2, crop_scale=(0.5, 1.0)), View(copies=4, size=5, crop_scale=(0.2, 0.5), flip_probability=0.5)]
)
RECIPE = OptimizerRecipe(algorithm=torch.optim.AdamW, lr=1e-2, batch_size=16)


def two_sizes(num_images: int) -> tuple[torch.Tensor, torch.Tensor]:
    """2 views of 8×8 pixels and 4 of 5×5."""
    return tiny_views(num_images), tiny_views(num_images, 4, seed=2)[..., :5, :5]


def passes(method) -> list[tuple[int, ...]]:
    """Shapes of what the backbone sees from now on."""
    seen = []
    method.backbone.register_forward_pre_hook(lambda _, arguments: seen.append(tuple(arguments[0].shape)))
    return seen


def test_one_pass_a_size_over_all_of_its_views():
    method = Swapped()
    seen = passes(method)
    method.ssl_loss(batch_of(*two_sizes(6)), LOCAL, Draw())
    assert seen == [(12, 1, 8, 8), (24, 1, 5, 5)]
    simclr = tiny_simclr()
    seen = passes(simclr)
    simclr.ssl_loss(batch_of(tiny_views(6)), LOCAL, Draw())
    assert seen == [(12, 1, 8, 8)]


def test_representations_stand_in_the_order_of_the_views():
    method, views = Swapped(), two_sizes(6)
    objective = method.ssl_loss(batch_of(*views), LOCAL, Draw())
    assert objective.representations.shape == (6, 6, 6)
    assert objective.embeddings.shape == (6, 6, 4)
    single = [view for size in views for view in size]
    for v, view in enumerate(single):
        for n, image in enumerate(view):
            r = method(image[None])
            torch.testing.assert_close(objective.representations[v, n], r[0])
            torch.testing.assert_close(objective.embeddings[v, n], method.project(r)[0])


def test_swapped_predictions_equal_a_naive_loop():
    method, views = Swapped(), two_sizes(3)
    objective = method.ssl_loss(batch_of(*views), LOCAL, Draw())
    losses = []
    for v in range(2):
        for w in range(6):
            for n in range(3):
                if v != w:
                    code = (objective.embeddings[v, n] / 0.1).softmax(0)
                    losses.append(-(code * (objective.embeddings[w, n] / 0.2).log_softmax(0)).sum())
    torch.testing.assert_close(objective.loss, torch.stack(losses).mean())


def test_a_classifier_sees_all_sizes():
    torch.manual_seed(0)
    method, views = Supervised(Pooled(), 3), two_sizes(6)
    objective = method.ssl_loss(batch_of(*views), LOCAL, Draw())
    assert objective.embeddings.shape == (6, 6, 3)
    expected = [
        torch.nn.functional.cross_entropy(method.project(method(view)), torch.arange(6) % 3, reduction="none")
        for size in views
        for view in size
    ]
    torch.testing.assert_close(objective.image_losses, torch.stack(expected).mean(0))
    torch.testing.assert_close(objective.loss, torch.stack(expected).mean())


def test_gessl_splits_the_images_of_all_sizes():
    views = two_sizes(8)
    wrapped, parts = GeSSL(Swapped(), tasks=2, weight_meta=0.0), [Swapped(), Swapped()]
    objective = wrapped.ssl_loss(batch_of(*views), LOCAL, Draw())
    objective.loss.backward()
    singles = []
    for method, images in zip(parts, (slice(0, 4), slice(4, 8)), strict=True):
        single = method.ssl_loss(batch_of(*(size[:, images] for size in views)), LOCAL, Draw())
        single.loss.backward()
        singles.append(single)
    torch.testing.assert_close(objective.loss, torch.stack([single.loss for single in singles]).mean())
    assert torch.equal(objective.embeddings, torch.cat([single.embeddings for single in singles], 1))
    for ours, *theirs in zip(gradients(wrapped.base), *map(gradients, parts), strict=True):
        torch.testing.assert_close(ours, sum(theirs) / 2, rtol=1e-12, atol=1e-14)


def test_gessl_adapts_and_matches_on_all_sizes():
    """The gradient of the meta loss at θ¹, by the specification."""
    views, rate = two_sizes(4), 0.1
    wrapped = GeSSL(Swapped(), tasks=1, weight_base=0.0, inner_lr=rate, match="parameters")
    objective = wrapped.ssl_loss(batch_of(*views), LOCAL, Draw())
    objective.loss.backward()
    method = Swapped()
    names = [name for name, _ in method.named_parameters()]

    class Loss(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.method = method

        def forward(self):
            return self.method.ssl_loss(batch_of(*views), LOCAL, Draw()).loss

    def direction(at):
        loss = functional_call(Loss(), {f"method.{n}": p for n, p in zip(names, at, strict=True)}, ())
        return torch.autograd.grad(loss, at)

    theta = [p.detach().requires_grad_() for p in method.parameters()]
    adapted = [(p - rate * g).detach().requires_grad_() for p, g in zip(theta, direction(theta), strict=True)]
    # ½‖θ¹ − (θ¹ − α∇ℓ)‖² has the gradient α∇ℓ where the target is fixed.
    for ours, theirs in zip(gradients(wrapped.base), direction(adapted), strict=True):
        torch.testing.assert_close(ours, rate * theirs, rtol=1e-10, atol=1e-16)


def test_fresh_views_are_half_of_each_size():
    views = (tiny_views(6, 4), tiny_views(6, 4, seed=2)[..., :5, :5])
    method = GeSSL(Swapped(), tasks=1, match_views="fresh")
    first, second = method._halves(batch_of(*views))
    assert all(torch.equal(half, size[:2]) for half, size in zip(first.views, views, strict=True))
    assert all(torch.equal(half, size[2:]) for half, size in zip(second.views, views, strict=True))
    other = [size.clone() for size in views]
    for size in other:
        size[2:] += 1
    scalars = [method.ssl_loss(batch_of(*v), LOCAL, Draw()).scalars for v in (views, other)]
    assert scalars[0]["base_loss"] == scalars[1]["base_loss"]
    assert scalars[0]["meta_loss"] != scalars[1]["meta_loss"]


@pytest.mark.parametrize("wrapped", [False, True], ids=["alone", "in GeSSL"])
@pytest.mark.parametrize("base", [Swapped, Dropout])
def test_two_sizes_train_to_the_end(base, wrapped):
    method = GeSSL(base(), optimizer=RECIPE) if wrapped else base(RECIPE)
    before = [p.clone() for p in method.parameters()]
    trainer = fitting.fit(trained=method, augment=TWO_SIZES)
    assert trainer.global_step == method.steps == method.batches == 6
    for old, new in zip(before, method.parameters(), strict=True):
        assert torch.isfinite(new).all()
        assert not torch.equal(old, new)
