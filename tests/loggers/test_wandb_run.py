"""Ids, config and summary of wandb runs."""

import pytest
import wandb

from ssl_lightning.loggers.wandb_run import wandb_arguments_of, wandb_id, wandb_summary
from ssl_lightning.runs.run import Identity

IDENTITY = Identity("simclr", "digits", "random", 0.5, 3, "epochs", "0a1b2c3d")
NAME = IDENTITY.run_name


def test_an_id_is_that_of_a_run_in_a_sweep():
    assert wandb_id(NAME, "one") == wandb_id(NAME, "one")
    assert wandb_id(NAME, "one") != wandb_id(NAME, "two")
    assert wandb_id(NAME, "one").startswith(NAME)
    # What differs only in what wandb does not take, or in what is cut, still differs.
    assert wandb_id("a'b", "one") != wandb_id("a=b", "one")
    assert wandb_id("a" + 99 * "b", "one") != wandb_id("c" + 99 * "b", "one")


@pytest.mark.parametrize("name", [NAME, "a+b=c@d'e-0a1b2c3d", 200 * "ä", "-x"])
def test_wandb_takes_every_id(name):
    id = wandb_id(name, "a sweep")
    assert len(id) <= 64
    assert wandb.Settings(run_id=id).run_id == id


def test_panels_group_by_plain_values():
    told = wandb_arguments_of(NAME, IDENTITY, "one", {"method": {"temperature": 0.2}, "seed": 3})
    config = told["config"]
    assert [config[key] for key in ("method", "dataset", "subset", "fraction", "seed")] == [
        *("simclr", "digits", "random", 0.5, 3)
    ]
    assert config["settings"] == {"method": {"temperature": 0.2}, "seed": 3}
    assert (told["group"], told["job_type"], told["tags"]) == ("one", "simclr", ["digits", "random"])


def test_numbers_of_two_protocols_have_two_names():
    def measured(top1, settings):
        protocol = {"dataset": "digits", "content": "c", "settings": settings, "reading": {}}
        return {"metrics": {"linear/top1": top1}, "protocol": protocol}

    results = {"identity": {"dataset": "digits"}, "cost": {"train_seconds": 2.0}, **measured(0.9, {})}
    summary = wandb_summary(results, [measured(0.8, {"k": 5})])
    assert summary["linear/top1"] == 0.9
    assert summary["cost/train_seconds"] == 2.0
    assert summary["protocol"]["name"] == "standard"
    ((key, further),) = summary["protocols"].items()
    assert further["name"] == "k=5"
    assert summary[f"evaluations/{key}/linear/top1"] == 0.8
    assert further["digest"] != summary["protocol"]["digest"]
