"""Labels of some images, wherever these stand: probes learn from them, pretraining sees all."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_lightning.data.sources.image_folder import ImageFolder
from ssl_lightning.errors import UserError
from ssl_lightning.evaluation.splits import few_of, splits_of
from ssl_lightning.evaluation.suite import EvaluationSuite, RanksOnly
from ssl_lightning.subsets.latent import FewLabels, Labels
from tests.data.sources.test_walk import folder_of, put

LABELS = [0, -1, 1, -1, 0, 1, 1, 0, -1, 1, 0, -1]
KNOWN = [i for i, label in enumerate(LABELS) if label >= 0]


@pytest.fixture(params=["resident", "streamed"])
def partly(request, tmp_path: Path) -> ImageFolder:
    """The images of `LABELS`, four for validation and two for testing."""
    return listed(tmp_path, request.param, val=True)


def listed(root: Path, storage: str, val: bool) -> ImageFolder:
    names = [f"{i:02d}.png" for i in range(len(LABELS) + 6)]
    put(root, *names)
    parts = ["train"] * len(LABELS) + ["val" if val else "test"] * 4 + ["test"] * 2
    rows = zip(names, [*LABELS, 0, 1, 0, 1, 0, 1], parts, strict=True)
    (root / "labels.csv").write_text("".join(f"{name},{label},{part}\n" for name, label, part in rows))
    return folder_of(root, storage=storage, labels=str(root / "labels.csv"))


def test_probes_learn_from_those_that_are_labelled(partly):
    images, labels = partly.labelled()
    train, val = partly.train(), partly._open("val")
    assert train.labels.tolist() == LABELS
    assert labels.tolist() == [LABELS[i] for i in KNOWN] + [0, 1, 0, 1]
    assert torch.equal(images[:], torch.cat([train.images[:][KNOWN], val.images[:]]))
    assert partly.validation_part().tolist() == [False] * len(KNOWN) + [True] * 4
    EvaluationSuite().check(partly)


@pytest.mark.parametrize("storage", ["resident", "streamed"])
def test_settings_are_chosen_on_some_that_are_labelled(tmp_path, storage):
    partly = listed(tmp_path, storage, val=False)
    held_out = partly.validation()
    assert [LABELS[i] for i in torch.nonzero(held_out).flatten()] in ([0, 1], [1, 0])
    part = partly.validation_part()
    assert part.tolist() == held_out[KNOWN].tolist()
    assert part.sum() == 2


def test_ranks_are_those_of_all_images(partly):
    splits = splits_of(RanksOnly.needs_labels, partly)
    assert len(splits.train.labels) == len(LABELS)
    assert splits.test is None
    assert len(few_of(splits).train.labels) == len(LABELS)


def test_few_labels_are_those_of_train(partly):
    """Where the images lie does not matter, and labels of val are not taken for those of other images."""
    partly.train()
    vectors = np.array([[1.0, 0.0] if label == 0 else [0.0, 1.0] for label in LABELS], np.float32)
    assigned = FewLabels(percent=100.0).assign(partly, vectors, 0)
    assert assigned.tolist() == [0 if label == 0 else 1 for label in LABELS]


def test_what_needs_all_labels_says_what_does_with_few(partly):
    with pytest.raises(UserError, match=r"4 of the 12 .* subset.latent=kmeans .*; or .* subset.latent=few_labels\."):
        Labels().check_dataset(partly)
