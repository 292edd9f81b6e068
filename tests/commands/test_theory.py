"""ssl-theory: a table, numbers, and pictures; wrong input in one line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from ssl_lightning.theory.experiments import Alignment, Depth, StrongAugmentation
from tests.conftest import Outcome

Command = Callable[..., Outcome]

SHORT = ("augmentation.steps=20", "depth.steps=20", "alignment.steps=20")


def test_numbers_and_pictures_of_all_experiments(command: Command):
    done = command("ssl-theory", *SHORT, "seed=1")
    assert done.code == 0, done.err
    to = Path("runs/theory")
    names = ["theory.json", "augmentation.png", "depth.png", "alignment.png"]
    assert done.out.splitlines()[-4:] == [str(to / name) for name in names]
    assert sorted(file.name for file in to.iterdir()) == sorted(names)
    for name in names[1:]:
        with Image.open(to / name) as image:
            assert min(image.size) > 400

    written = json.loads((to / "theory.json").read_text())
    augmented = StrongAugmentation(steps=20).run(1)
    assert written["seed"] == 1
    assert written["augmentation"]["settings"]["steps"] == 20
    assert written["augmentation"]["gap"] == pytest.approx(augmented.gap.tolist())
    assert written["depth"]["effective_rank"] == pytest.approx(Depth(steps=20).run(1).effective_rank)
    aligned = Alignment(steps=20).run(1)
    assert written["alignment"]["steps"] == aligned.steps
    assert written["alignment"]["matrix"] == [pytest.approx(row, rel=1e-6) for row in aligned.matrix.tolist()]
    assert f"{augmented.gap[-1]:.2f}" in done.out
    assert "implicit regularisation: next to no noise" in done.out


def test_each_job_of_a_multirun_has_its_own_folder(command: Command):
    done = command("ssl-theory", "-m", *SHORT, "seed=1,2", "to=both")
    assert done.code == 0, done.err
    assert [json.loads(Path(f"both/{job}/theory.json").read_text())["seed"] for job in (0, 1)] == [1, 2]


def test_other_sizes(command: Command):
    sizes = [f"{name}.dimensions=5" for name in ("augmentation", "depth", "alignment")]
    others = ("augmentation.noisy=1", "augmentation.noise=[1.0]", "depth.layers=[2]")
    done = command("ssl-theory", *SHORT, *sizes, *others, "to=small")
    assert done.code == 0, done.err
    assert "σ4/σ5" in done.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["augmentation.noise=[-1.0]"], "augmentation.noise is [-1.0]"),
        (["depth.alike=both"], "depth.alike is 'both'"),
        (["alignment.step=5"], "did you mean 'alignment.steps'?"),
        (["seed=-1"], "seed is -1"),
        (["augmentation.noisy=16"], "Error: augmentation: noisy is 16, but"),
        ([*SHORT, "alignment.lr=1e200"], "Error: alignment: training of 2 layers diverges at step"),
        (["augmentation._target_=ssl_lightning.theory.experiments.Depth"], "does not make a"),
        ([*SHORT, "to=file"], "cannot write file/theory.json"),
    ],
)
def test_wrong_input(command: Command, arguments, said):
    Path("file").write_text("mine")
    done = command("ssl-theory", *arguments)
    assert done.code == 1
    assert said in done.err
    assert done.err.startswith("Error: ")
    assert done.err.count("\n") == 1


def test_help_says_what_can_be_set(command: Command):
    done = command("ssl-theory", "--help")
    assert done.code == 0
    assert "experiments with linear encoders" in done.out
    assert "noisy: 8" in done.out
