"""What can be set, and what it means, is said by the commands themselves."""

from pathlib import Path

import pytest

from ssl_lightning.config.places import CONF
from tests.config.configs import PLACES


def groups_of(help: str) -> dict[str, list[str]]:
    lines = help.partition("== Groups")[2].partition("\n\n")[0].splitlines()[1:]
    return {group: options.split(", ") for group, _, options in (line.partition(": ") for line in lines)}


@pytest.mark.nightly
def test_each_command_lists_its_own_groups(command):
    of_train, of_select, of_evaluate = (
        groups_of(command(f"ssl-{name}", "--help").out) for name in ("train", "select", "evaluate")
    )
    assert of_train == of_select
    assert set(of_evaluate) == {"encoder", "dataset", "evaluation", "trainer", "hydra/launcher"}
    assert {"method", "method.projector", "subset.latent"} <= set(of_train)
    assert "encoder" not in of_train
    nested = {place: group for group, place in PLACES.items()}
    listed = {nested.get(group, group) for group in (*of_train, *of_evaluate)}
    assert listed | {"hydra"} == {path.name for path in CONF.iterdir() if path.is_dir()} | {"hydra/launcher"} | {
        "hydra"
    }
    assert of_train["method"] == sorted(file.stem for file in (CONF / "method").glob("*.yaml"))


def test_ones_own_options_are_among_them(command, tmp_path):
    (tmp_path / "own/method").mkdir(parents=True)
    (tmp_path / "own/method/mine.yaml").write_text("# What is mine.\ndefaults: [simclr]\n")
    assert "mine" in groups_of(command("ssl-train", "--config-dir", "own", "--help").out)["method"]
    said = command("ssl-train", "--config-dir", "own", "--help", "method").out
    assert "== method=mine (own/method/mine.yaml) ==\n# What is mine.\n" in said
    assert "== method=simclr (" in said


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("subset", sorted(CONF.glob("subset/*.yaml"))),
        ("method.projector", sorted(CONF.glob("projector/*.yaml"))),
        ("trainer/auto", [CONF / "trainer/auto.yaml"]),
        ("hydra/launcher", sorted(CONF.glob("hydra/launcher/*.yaml"))),
        ("hydra/launcher/slurm", [CONF / "hydra/launcher/slurm.yaml"]),
    ],
)
def test_the_settings_of_a_group_are_shown_with_their_comments(command, name: str, files: list[Path]):
    outcome = command("ssl-train", "--help", name)
    assert outcome.code == 0, outcome.err
    assert [line for line in outcome.out.splitlines() if line.startswith("== ")] == [
        f"== {file.parent.relative_to(CONF)}={file.stem} ({file}) ==" for file in files
    ]
    assert all(file.read_text(encoding="utf-8").strip() in outcome.out for file in files)


@pytest.mark.parametrize(
    ("name", "nearest"), [("methd", "did you mean 'method'?"), ("method/simcl", "did you mean 'method/simclr'?")]
)
def test_a_group_that_is_not_there(command, name, nearest):
    outcome = command("ssl-train", "--help", name)
    assert outcome.code == 1
    assert outcome.err == f"Error: --help {name}: there is nothing of this name; {nearest}\n"
