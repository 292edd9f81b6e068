import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from my_package.dataset import Shapes
from my_package.method import spectral_contrastive
from my_package.rule import Contrast
from omegaconf import OmegaConf

from ssl_lightning.losses.gather import LOCAL, Gather

HERE = Path(__file__).parents[1]


@pytest.fixture
def shapes() -> Shapes:
    """As conf/dataset/shapes.yaml describes them."""
    settings = OmegaConf.load(HERE / "conf/dataset/shapes.yaml")
    return Shapes(**{key: value for key, value in settings.items() if key != "_target_"})


def test_the_loss_is_that_of_the_paper() -> None:
    z = torch.randn(3, 4, 5, dtype=torch.float64)
    pairs = list(itertools.permutations(range(3), 2))
    own = sum(z[v, i] @ z[w, i] for v, w in pairs for i in range(4)) / (len(pairs) * 4)
    others = [(z[v, i] @ z[w, j]) ** 2 for v, w in pairs for i, j in itertools.permutations(range(4), 2)]
    torch.testing.assert_close(spectral_contrastive(z, LOCAL), -2 * own + sum(others) / len(others))


def test_two_processes_have_the_loss_of_one() -> None:
    z = torch.randn(2, 6, 5, dtype=torch.float64)

    class Both(Gather):
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return z.transpose(0, 1).flatten(1)

    halves = [spectral_contrastive(half, Both(rank, 2)) for rank, half in enumerate(z.split(3, 1))]
    torch.testing.assert_close(sum(halves) / 2, spectral_contrastive(z, LOCAL))


def test_shapes_are_what_their_config_says(shapes: Shapes) -> None:
    images, labels = shapes.train()  # refuses what does not agree
    assert images.shape == (800, 1, 16, 16)
    assert labels.bincount().tolist() == [200] * 4
    values = images.double() / 255
    assert values.mean().item() == pytest.approx(shapes.mean[0], abs=0.001)
    assert values.std().item() == pytest.approx(shapes.std[0], abs=0.001)
    assert not torch.equal(shapes.test().images, images[:400])


@pytest.mark.parametrize("keep", ["highest", "lowest"])
def test_the_rule_keeps_one_end_of_each_class(shapes: Shapes, keep: str) -> None:
    mask = Contrast(keep=keep).ranking(shapes).mask(0.25)
    images, labels = shapes.train()
    contrast = images.double().flatten(1).std(1) * (1 if keep == "highest" else -1)
    kept = torch.zeros(800, dtype=torch.bool)
    kept[mask.positions] = True
    for label in range(4):
        mine = labels == label
        assert (kept & mine).sum() == 50
        assert contrast[kept & mine].min() >= contrast[~kept & mine].max()


def run(command: str, *arguments: str, folder: Path) -> str:
    """What `ssl-<command> --config-dir conf <arguments>` prints, from another folder."""
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    module = [sys.executable, "-m", f"ssl_lightning.commands.{command}", "--config-dir", str(HERE / "conf")]
    ended = subprocess.run(
        [*module, *arguments], cwd=folder, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_a_rehearsal_of_all_of_it(tmp_path: Path) -> None:
    """A step, a checkpoint, the evaluation: in seconds, and nothing is kept."""
    settings = ("method=spectral_contrastive", "dataset=shapes", "subset=contrast", "subset.fraction=0.5")
    said = run("train", *settings, "batch_size=64", "trainer=cpu", "trainer.fast_dev_run=true", folder=tmp_path)
    assert "went well" in said


def test_the_grid_has_its_jobs(tmp_path: Path) -> None:
    assert "8 jobs, none of which was run" in run("sweep", "shapes", "--dry-run", folder=tmp_path)
