"""A small vision transformer: timm's, under timm's names."""

import pytest
import torch

from ssl_lightning.data.draw import Draw
from ssl_lightning.data.views import Augment, View
from ssl_lightning.errors import UserError
from ssl_lightning.losses.gather import LOCAL
from ssl_lightning.methods.directclr import DirectCLR
from ssl_lightning.methods.gessl import GeSSL
from ssl_lightning.methods.simclr import SimCLR
from ssl_lightning.models import vit
from ssl_lightning.models.projectors import linear
from ssl_lightning.models.vit import VisionTransformer
from ssl_lightning.optim.recipe import OptimizerRecipe
from tests.callbacks.fitting import fit
from tests.methods.networks import batch_of, gradients, tiny_views


def small() -> VisionTransformer:
    """Of 4 × 4 patches of 2 pixels."""
    torch.manual_seed(0)
    return VisionTransformer(8, 1, patch_size=2, width=12, depth=2, heads=3)


@pytest.mark.parametrize("side", [8, 4, 16])
def test_it_is_timms_network(side):
    timm = pytest.importorskip("timm")
    ours = small().double().eval()
    theirs = timm.models.VisionTransformer(
        **{"img_size": 8, "patch_size": 2, "in_chans": 1, "embed_dim": 12, "depth": 2, "num_heads": 3},
        **{"num_classes": 0, "class_token": False, "global_pool": "avg", "fc_norm": False, "dynamic_img_size": True},
    )
    theirs = theirs.double().eval()
    for p in ours.parameters():  # biases and norms too are none that it begins with
        torch.nn.init.normal_(p, std=0.5)
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(3, 1, side, side, dtype=torch.float64)
    single = side != 8  # timm resamples positions in float32
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-9, atol=1e-6 if single else 1e-12)


def test_by_default_it_is_small_and_for_cifar():
    network = VisionTransformer()
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, network.num_features) == (2, 96)
    assert network.pos_embed.shape == (1, 64, 96)
    # 12 d² + 13 d a block; patches, positions, and the last norm
    assert sum(p.numel() for p in network.parameters()) == 6 * (12 * 96**2 + 13 * 96) + 49 * 96 + 64 * 96 + 2 * 96


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"width": 10}, "backbone.width is 10, which 3 heads cannot share"),
        ({"image_size": 30}, "dataset.image_size is 30 pixels, which is no whole number of patches of 4"),
        ({"image_size": 8, "patch_size": 16}, "dataset.image_size is 8 pixels"),
    ],
)
def test_what_does_not_divide(settings, said):
    with pytest.raises(UserError, match=said):
        VisionTransformer(**settings)


def test_a_view_that_is_no_whole_number_of_patches():
    with pytest.raises(UserError, match=r"The side of a view is 5 pixels, .* backbone\.patch_size that divides it"):
        small()(torch.randn(2, 1, 5, 5))


def test_views_of_two_sizes_train_it():
    recipe = OptimizerRecipe(algorithm=torch.optim.AdamW, lr=1e-3, batch_size=16)
    method = SimCLR(small(), linear, optimizer=recipe)
    before = method.backbone.pos_embed.detach().clone()
    views = Augment([View(copies=2, crop_scale=(0.5, 1.0)), View(copies=2, size=4, crop_scale=(0.2, 0.5))])
    assert fit(trained=method, augment=views, max_epochs=1).global_step == 3
    assert not torch.equal(method.backbone.pos_embed, before)


def test_its_residual_stream_is_the_identity_path_that_directclr_needs():
    """Where the last block's branches are 0, each channel of r is the normalised channel of its input; and channels
    beyond d0 learn, though the loss does not see them."""
    method = DirectCLR(small(), d0=3)
    block, inputs, outputs = method.backbone.blocks[-1], [], []
    block.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    method.backbone.register_forward_hook(lambda _, __, output: outputs.append(output))
    objective = method.ssl_loss(batch_of(tiny_views(8)), LOCAL, Draw())
    of_r, of_input = torch.autograd.grad(objective.loss, [outputs[0], inputs[0]])
    assert not of_r[:, 3:].any()
    assert (of_input.abs().amax((0, 1)) > 0).all()

    for layer in (block.attn.proj, block.mlp.fc2):
        torch.nn.init.zeros_(layer.weight)
    representations = method(tiny_views(8)[0])
    torch.testing.assert_close(representations, method.backbone.norm(inputs[-1]).mean(1))


def plain_attention(q, k, v):
    return (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1) @ v


@pytest.mark.parametrize("order", ["first", "second"])
def test_meta_updates_go_through_attention(order, monkeypatch):
    """Of fused attention there is no second derivative: GeSSL's is that of the formula."""
    found = []
    for attention in (None, plain_attention):
        if attention:
            monkeypatch.setattr(vit, "scaled_dot_product_attention", attention)
        method = GeSSL(SimCLR(small(), linear), order=order).double()
        torch.manual_seed(1)
        method.ssl_loss(batch_of(tiny_views(8).double()), LOCAL, Draw()).loss.backward()
        found.append(gradients(method))
    assert sum(g.abs().sum() for g in found[0]) > 0
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-12)
