"""What a config may name, and what becomes of it."""

import functools
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from torch import nn

from ssl_lightning.config.components import KNOWN, make, own_modules, refuse_unknown, targets
from ssl_lightning.config.resolve import resolve
from ssl_lightning.data.views import View
from ssl_lightning.errors import UserError
from ssl_lightning.optim.schedule import Schedule
from ssl_lightning.runs.loading import KINDS
from tests.composing import composed
from tests.config.configs import forget  # noqa: F401  a fixture

LINEAR = {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 3}
PATH = {"_target_": "pathlib.Path", "_args_": ["a"]}


def test_components_are_made_with_all_that_is_nested():
    network = make({"_target_": "torch.nn.Sequential", "_args_": [LINEAR, {"_target_": "torch.nn.ReLU"}]})
    assert isinstance(network, nn.Sequential)
    assert network[0].out_features == 3
    assert make(LINEAR, out_features=5).out_features == 5
    later = make(LINEAR | {"_partial_": True})
    assert isinstance(later, functools.partial)
    assert isinstance(later(), nn.Linear)


def test_the_users_own_config_may_name_anything():
    assert make(PATH) == Path("a")
    assert isinstance(make({"_target_": "tests.config.test_components.foreign_module"}), Outside)


class Outside(nn.Module):
    """A network of neither the package nor torch."""


def foreign_module() -> nn.Module:
    return Outside()


def test_targets_are_found_wherever_they_are():
    config = {"a": {"_target_": "x.A", "_args_": [{"_target_": "x.B"}]}, "b": [[{"c": {"_target_": "x.C"}}]]}
    expected = [("a", "x.A"), ("a._args_.0", "x.B"), ("b.0.0.c", "x.C")]
    assert list(targets(config)) == expected
    assert list(targets(OmegaConf.create(config))) == expected
    assert own_modules({"a": config, "b": LINEAR}) == {"x"}


@pytest.mark.parametrize(
    ("config", "path"),
    [
        (PATH, "_target_"),
        ({"a": PATH}, "a._target_"),
        (LINEAR | {"bias": PATH}, "bias._target_"),
        ({"_target_": "torch.nn.Sequential", "_args_": [LINEAR, PATH]}, "_args_.1._target_"),
        ({"_target_": "torch.nnn.Linear"}, "_target_"),
        ({"_target_": "torch.hub.load"}, "_target_"),
        ({"_target_": "torch.nn"}, "_target_"),
        ({"_target_": "ssl_lightning.files.os.remove"}, "_target_"),
        ({"_target_": "torchvision.models.resnet.torch.load"}, "_target_"),
    ],
)
def test_what_others_wrote_may_name_only_known_modules(config, path):
    with pytest.raises(UserError) as caught:
        make(config, trusted=())
    assert str(caught.value).startswith(f"{path} in the config is ")
    for module in KNOWN:
        assert module in str(caught.value)


def test_nothing_is_imported_before_all_names_are_known(tmp_path, monkeypatch):
    (tmp_path / "imported_by_accident.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match=r"b\._target_"):
        refuse_unknown({"a": {"_target_": "imported_by_accident.X"}, "b": PATH}, ("imported_by_accident",))


def test_trusted_modules():
    refuse_unknown({"a": {"_target_": "pathlib.PurePath"}}, ["pathlib"])
    assert make(PATH, trusted=["pathlib"]) == Path("a")


def test_a_target_that_is_no_name():
    with pytest.raises(UserError, match=r"a\._target_ in the config is 3: give the name"):
        make({"a": {"_target_": 3}})


@pytest.mark.parametrize("method", ["simclr", "gessl"])
def test_runs_of_the_package_name_known_modules(method):
    config = resolve(composed(f"method={method}", "subset=sas"))
    refuse_unknown({name: config[name] for name in KINDS})


@pytest.mark.usefixtures("forget")
def test_components_within_lists_and_mappings_reach_their_owner_as_they_are():
    schedule = "{weight_decay: {_target_: ssl_lightning.optim.schedule.Schedule, final_ratio: 10.0}}"
    config = resolve(composed(f"optimizer.schedules={schedule}"))
    recipe = make(config["method"]).recipe
    assert recipe.schedules == {"weight_decay": Schedule(final_ratio=10.0)}
    assert type(recipe.schedules) is dict
    assert all(isinstance(view, View) for view in make(config["augment"])._views)


def test_factories_of_timm_are_not_called_for_somebody_else():
    """They fetch weights by name, or read any file of them; a run of ours names `ssl_lightning.models.of_timm`."""
    config = {"_target_": "timm.create_model", "model_name": "resnet10t", "checkpoint_path": "/somewhere"}
    with pytest.raises(UserError, match="timm"):
        refuse_unknown({"method": {"backbone": config}}, (), "config.yaml")
