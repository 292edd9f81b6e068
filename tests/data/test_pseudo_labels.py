"""Groups in the place of labels: for pretraining alone, from a file that is looked at."""

import numpy as np
import pytest

from ssl_lightning.data.pseudo_labels import PseudoLabels
from ssl_lightning.errors import UserError
from tests.callbacks import fitting

GROUPS = np.random.default_rng(0).integers(0, 5, (48, 2))


@pytest.fixture
def labels(tmp_path):
    made = PseudoLabels(name="mine", folder=str(tmp_path))
    np.save(made.file, GROUPS)
    return made


def test_train_alone_has_them(labels):
    plain, other = fitting.dataset(), fitting.dataset()
    before = plain.fingerprint()
    other.pseudo_labels = labels
    for dataset in (other, plain.relabelled(labels)):
        np.testing.assert_array_equal(dataset.train().labels, GROUPS[:, 0])
        for images in (dataset.clean, dataset.labelled):
            np.testing.assert_array_equal(images().labels, plain.train().labels)
        np.testing.assert_array_equal(dataset.test().labels, plain.test().labels)
        assert dataset.fingerprint() == before  # positions mean the same images
    assert plain.relabelled(labels).train().images is plain.train().images
    assert plain.pseudo_labels is None


@pytest.mark.parametrize(
    "content",
    [GROUPS[:40], GROUPS[:, 0], GROUPS.astype(np.float64), GROUPS - 1, np.array([object()]), None],
    ids=["fewer", "one level", "floats", "negative", "pickled", "missing"],
)
def test_another_file_is_refused(labels, content):
    labels.file.unlink()
    if content is not None:
        np.save(labels.file, content, allow_pickle=True)
    with pytest.raises(UserError, match=r"holds no groups of 48 training images \(.*\)\. Delete it") as caught:
        fitting.dataset().relabelled(labels).train()
    assert "allow_pickle" not in str(caught.value)


def test_half_a_file_is_refused(labels):
    labels.file.write_bytes(labels.file.read_bytes()[:200])
    with pytest.raises(UserError, match="holds no groups of 48"):
        labels.levels(48)
