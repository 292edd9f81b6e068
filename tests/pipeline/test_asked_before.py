"""What can be known before training is asked before it; and what an evaluation needs costs no training."""

from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from PIL import Image

from ssl_lightning.commands.train import train
from ssl_lightning.data.decoding import StreamedImages
from ssl_lightning.errors import UserError
from ssl_lightning.runs.run import Run
from tests.composing import TINY, composed
from tests.data.synthetic import write_fashion_mnist, write_image_folder
from tests.pipeline.test_fast_dev_run import Steps, place, steps

__all__ = ["place", "steps"]
pytestmark = pytest.mark.usefixtures("no_figures")

STREAMED = (
    *TINY,
    *("dataset=image_folder", "dataset.root=data", "dataset.num_classes=10", "dataset.image_size=16"),
    *("dataset.storage=streamed", "dataset.workers=0", "subset.fraction=0.5"),
)


def start(*overrides: str) -> Run:
    config = composed(*overrides)
    HydraConfig.instance().cfg = None
    return train(config)


@pytest.fixture
def images(place: Path) -> list[Path]:
    """Of test, by name."""
    write_image_folder(place / "data")
    return sorted((place / "data" / "test").rglob("*.png"))


@pytest.mark.reliability(
    "an image that only the evaluation reads cannot be decoded",
    lost="nothing: it is named before training",
    read="`cannot decode the image …`, all of them at once",
)
@pytest.mark.parametrize("split", ["test", "train"])
def test_an_image_that_only_the_evaluation_reads(split, images, place, steps: Steps):
    """Of train, too: half of its images are outside of the subset."""
    for file in images if split == "test" else sorted((place / "data" / "train").rglob("*.png")):
        file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(UserError, match=r"images cannot be decoded"):
        start(*STREAMED)
    assert steps.number == 0


@pytest.mark.nightly
def test_files_that_were_looked_at_are_not_looked_at_again(images, monkeypatch):
    looked = []
    real = StreamedImages.all
    monkeypatch.setattr(StreamedImages, "all", lambda self: looked.append(self.files.part) or real(self))
    for seed in (1, 2):
        start(*STREAMED, f"seed={seed}")
    assert looked == ["test", "train"]
    start(*STREAMED[:5], *STREAMED[len(TINY) :], "seed=3", "evaluation=none")
    assert looked == ["test", "train"]


@pytest.mark.nightly
@pytest.mark.reliability("an image of a folder is replaced, of the same size and name")
def test_a_test_image_that_is_mended_costs_an_evaluation_and_no_training(images, steps: Steps, capsys):
    run = start(*STREAMED)
    trained, before = steps.number, run.results()
    Image.new("RGB", (20, 20), "white").save(images[0])
    capsys.readouterr()
    assert start(*STREAMED) == run
    assert steps.number == trained
    (after,) = run.evaluations()
    assert run.results() == before
    assert after["protocol"]["settings"] == before["protocol"]["settings"]
    assert after["protocol"]["content"] != before["protocol"]["content"]
    start(*STREAMED)
    assert len(run.evaluations()) == 1


def test_archives_of_which_a_test_file_is_cut(place, steps: Steps):
    write_fashion_mnist(place / "data")
    (file,) = (place / "data").rglob("t10k-images-idx3-ubyte.gz")
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(UserError, match=f"{file.name} is damaged or truncated"):
        start(*TINY, "dataset=fashion_mnist")
    assert steps.number == 0


@pytest.mark.one_in(6)
@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("batch_size=900",), "has only 629 images"),
        (("batch_size=9", "trainer=ddp_cpu"), "2 processes cannot share equally"),
        (("batch_size=1",), "compares at least 2"),
        (("method=gessl", "method.tasks=3", "batch_size=8"), "choose a multiple of 3"),
        (("evaluation.k=5000",), r"evaluation\.k is 5000"),
        (("method=supervised", "dataset.num_classes=null"), r"dataset\.num_classes is null"),
        ((), "latent.npy"),
    ],
)
def test_no_proxy_is_trained_for_a_run_that_is_refused(place, steps: Steps, overrides, words):
    ranked = (*TINY, "subset=sas", "subset.fraction=0.5")
    if not overrides:
        overrides = ("latent@subset.latent=kmeans", "subset.latent.file=latent.npy")
    with pytest.raises(UserError, match=words):
        start(*ranked, *overrides)
    assert steps.number == 0
