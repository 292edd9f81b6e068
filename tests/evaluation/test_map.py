"""What there is to look at of a representation."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.metrics import confusion_matrix

from ssl_lightning.errors import UserError
from ssl_lightning.evaluation.map import Map, confusion, contact_sheet, principal_plane
from tests.evaluation.synthetic import subject_of
from tests.evaluation.test_episodes import dataset, encoders


def test_the_plane_is_that_of_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(50, 6, generator=generator, dtype=torch.float64) @ torch.randn(6, 6, generator=generator).double()
    at, explained = principal_plane(z)
    pca = PCA(2)
    reference = pca.fit_transform(z.numpy())
    reference *= np.sign(reference[np.abs(reference).argmax(0), [0, 1]])
    np.testing.assert_allclose(at.numpy(), reference, atol=1e-9)
    assert explained == pytest.approx(pca.explained_variance_ratio_.sum())
    flat, nothing = principal_plane(torch.ones(5, 3))
    assert not flat.any()
    assert nothing == 0


def test_the_plane_of_one_dimension():
    at, explained = principal_plane(torch.tensor([[1.0], [3.0]]))
    assert at[:, 0].tolist() == [-1, 1] or at[:, 0].tolist() == [1, -1]
    assert explained == pytest.approx(1)


def test_a_missing_extra_is_said_before_anything_is_looked_at(monkeypatch):
    monkeypatch.setattr("ssl_lightning.evaluation.map.find_spec", lambda name: None)
    Map().check(dataset())
    with pytest.raises(UserError, match=r"pip install 'ssl-lightning\[umap\]'"):
        Map(projection="umap").check(dataset())


def test_confusions_are_counted():
    generator = torch.Generator().manual_seed(1)
    named, labels = torch.randint(4, (2, 100), generator=generator)
    assert confusion(named, labels, 4).tolist() == confusion_matrix(labels, named).tolist()


def test_a_contact_sheet_shows_queries_and_what_was_found():
    asked = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
    asked[2] = 200
    found = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 3, 4, 4) * 20
    png = contact_sheet(asked, torch.tensor([2, 0]), found, torch.tensor([[3, 1], [2, 0]]))
    pixels = np.asarray(Image.open(io.BytesIO(png)))
    middles = pixels[[4, 10]][:, [4, 10, 16], 0]
    assert middles.tolist() == [[200, 60, 20], [0, 40, 0]]


def test_encoders_are_ordered():
    found = {
        name: Map(l2_grid=(1e-2,)).evaluate(subject_of(encoder, dataset())) for name, encoder in encoders().items()
    }
    alike, worst = (
        [one.metrics[f"map/{name}_top1"] for one in found.values()] for name in ("neighbours", "worst_class")
    )
    assert alike[0] == 1 > alike[1] > 0.25
    assert worst[0] == 1 > worst[1] >= worst[2] == 0
    assert Map().columns.keys() <= found["trained"].metrics.keys()
    kinds = {picture["kind"]: picture for picture in found["trained"].pictures}
    assert np.array(kinds["matrix"]["values"]).tolist() == np.eye(4).tolist()
    assert sorted(kinds["points"]["classes"]) == sorted(dataset().labels.tolist())
    assert Image.open(io.BytesIO(base64.b64decode(kinds["image"]["png"]))).size[0] > 9 * 8
    assert not np.any(found["collapsed"].pictures[0]["points"])


def test_more_neighbours_than_images_are_refused():
    Map().check(dataset(8))  # the default takes what there is
    Map(neighbours=12).check(dataset(12))
    with pytest.raises(UserError, match=r"evaluation\.neighbours is 13, but own has 12 labelled training images"):
        Map(neighbours=13).check(dataset(12))
