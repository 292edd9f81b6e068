"""Every file of conf/ and sweeps/ is right."""

import itertools
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from ssl_lightning.config.places import CONF, SWEEPS, grids
from ssl_lightning.config.resolve import resolve
from ssl_lightning.config.schema import EvaluateConfig
from tests.composing import composed, resolved
from tests.config.configs import NEEDED, OF_EVALUATE, PLACES, forget, node, proxy_of

__all__ = ["forget"]


def _options() -> list[str]:
    """`group=option` of every file in conf/ that a run can consist of."""
    files = sorted(file.relative_to(CONF).with_suffix("") for file in CONF.rglob("*.yaml"))
    found = [f"{file.parent}={file.name}" for file in files if file.parts[0] not in (file.name, "encoder", "hydra")]
    return [option for option in found if option not in OF_EVALUATE]


@pytest.mark.one_in(4)
@pytest.mark.parametrize("recipe", sorted(file.stem for file in (CONF / "experiment").glob("*_solo.yaml")))
def test_recipes_of_solo_learn_warm_up_alike(recipe):
    """For 10 epochs, from 3e-5."""
    optimizer = resolve(composed(f"experiment={recipe}"))["optimizer"]
    peak = optimizer["lr"] * optimizer["batch_size"] / optimizer["reference_batch_size"]
    assert peak * optimizer["warmup_ratio"] == pytest.approx(3e-5)
    assert optimizer["warmup_epochs"] == 10


@pytest.mark.one_in(12)
@pytest.mark.parametrize("option", _options())
def test_every_option_is_valid(option):
    group, _, name = option.partition("=")
    place = PLACES.get(group, group)
    choice = option if place == group else f"{group}@{place}={name}"
    subset = ["subset=sas"] if place.startswith("subset.") else []
    config = resolved(*subset, choice, *NEEDED.get(option, []))
    written = OmegaConf.load(CONF / f"{option.replace('=', '/')}.yaml")
    if "_target_" in written and group != "experiment":
        assert node(config, place)["_target_"] == written["_target_"]
    if "proxy" in config["subset"]:
        proxy_of(config)


@pytest.mark.one_in(4)
@pytest.mark.parametrize("encoder", sorted(file.stem for file in (CONF / "encoder").glob("*.yaml")))
@pytest.mark.parametrize("evaluation", sorted(file.stem for file in (CONF / "evaluation").glob("*.yaml")))
def test_every_evaluation_of_every_encoder_is_valid(encoder, evaluation):
    choices = (f"encoder={encoder}", f"evaluation={evaluation}", "dataset=cifar10", "trainer=ddp_cpu")
    config = resolve(composed(*choices, name="evaluate"), EvaluateConfig)
    assert config["encoder"]["_target_"] == OmegaConf.load(CONF / "encoder" / f"{encoder}.yaml")["_target_"]


def _sweep_jobs() -> list[Any]:
    """A list of overrides for every job of every grid."""
    jobs = []
    for file in grids(SWEEPS):
        sweeper = OmegaConf.load(file).hydra.sweeper
        if "n_trials" in sweeper:  # a search, which has ranges
            continue
        params = sweeper.params
        values = [[f"{key}={value}" for value in str(choices).split(",")] for key, choices in params.items()]
        jobs += [pytest.param(file.stem, job, id=f"{file.stem}-{','.join(job)}") for job in itertools.product(*values)]
    return jobs


def _rows(jobs: list[Any]) -> list[Any]:
    """Of a grid, as many jobs as are needed for each value to occur. Those without a value, or a grid, that has not
    occurred in another one are left to the nightly tests."""
    seen: set[tuple[str, str]] = set()
    rows, known = [], set()
    for job in jobs:
        name, overrides = job.values
        if new := {(name, override) for override in overrides} - seen:
            seen |= new
            first = {name, *overrides} - known
            known |= first
            rows.append(pytest.param(name, overrides, id=job.id, marks=() if first else pytest.mark.nightly))
    return rows


@pytest.mark.one_in(6)
@pytest.mark.parametrize(("grid", "job"), _rows(_sweep_jobs()))
def test_every_value_of_every_grid_is_valid(grid, job):
    config = resolve(composed(*job, name=grid, folder=SWEEPS))
    chosen = HydraConfig.get().runtime.choices
    assert config["sweep"].startswith(grid)
    for override in job:
        key, _, value = override.partition("=")
        place = key.rpartition("@")[2]
        found = chosen[key] if key in chosen else node(config, place)
        if key not in chosen and (isinstance(found, dict) or value == "none"):  # a component, by its name
            assert found == node(resolved(override), place)
            assert (found is None) == (value == "none")
        else:
            assert value == str(found)
        if key in chosen and place.partition(".")[0] in config:  # else it changes several keys, and is none
            assert node(config, place)["_target_"] == node(resolved(override), place)["_target_"]
    if "proxy" in config["subset"]:
        proxy_of(config)


@pytest.mark.parametrize("file", grids(SWEEPS), ids=lambda file: file.stem)
def test_every_grid_is_a_multirun(file):
    hydra = OmegaConf.load(file).hydra
    assert hydra.mode == "MULTIRUN"
    OverridesParser.create().parse_overrides([f"{key}={value}" for key, value in hydra.sweeper.params.items()])
