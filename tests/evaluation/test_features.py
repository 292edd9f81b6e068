import torch

from ssl_lightning.evaluation.features import extract


def _batches(sizes: list[int]) -> tuple[torch.Tensor, list[tuple[torch.Tensor, torch.Tensor]]]:
    images = torch.rand(sum(sizes), 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return images, list(zip(images.split(sizes), torch.arange(len(images)).split(sizes), strict=True))


def test_features_keep_the_order_of_the_batches():
    images, batches = _batches([4, 4, 1])
    features = extract(lambda x: (x.flatten(1), x.mean((2, 3))), iter(batches))
    assert torch.equal(features.representations, images.flatten(1))
    assert torch.equal(features.embeddings, images.mean((2, 3)))
    assert torch.equal(features.labels, torch.arange(9))


def test_encoding_records_no_gradient_and_leaves_ordinary_tensors():
    _, batches = _batches([4, 2])
    layer = torch.nn.Linear(48, 5)
    inference = []

    def encode(images):
        representation = layer(images.flatten(1))
        inference.append(torch.is_inference_mode_enabled() and representation.is_inference())
        return representation, representation.square()

    features = extract(encode, batches)
    assert inference == [True, True]
    assert not features.representations.requires_grad
    assert not features.embeddings.requires_grad

    # A classifier may be trained on them, which needs them to be saved for its backward pass.
    classifier = torch.nn.Linear(5, 2)
    classifier(features.representations).sum().backward()
    torch.testing.assert_close(classifier.weight.grad[0], features.representations.sum(0))


def test_features_of_low_precision_become_float32():
    images, batches = _batches([3])
    features = extract(lambda x: (x.flatten(1).bfloat16(), x.mean((2, 3)).double()), batches)
    assert features.representations.dtype == features.embeddings.dtype == torch.float32
    assert torch.equal(features.representations, images.flatten(1).bfloat16().float())
