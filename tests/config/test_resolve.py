"""Named components become what they name; every command resolves one config alike."""

import pytest
from omegaconf import OmegaConf

from ssl_lightning.config.identity import component_name
from ssl_lightning.config.places import CONF
from ssl_lightning.config.resolve import resolve
from ssl_lightning.config.schema import SelectConfig
from ssl_lightning.errors import UserError
from tests.composing import composed, resolved
from tests.config.configs import NEEDED, forget, proxy_of, refused

__all__ = ["forget"]


def test_a_base_method_may_be_named_as_a_value_or_as_an_option():
    by_value = resolve(composed("method=gessl", "method.base=directclr"))
    by_option = resolve(composed("method=gessl", "method@method.base=directclr"))
    assert by_value == by_option
    assert by_value["method"]["base"]["_target_"] == "ssl_lightning.methods.directclr.DirectCLR"
    assert component_name(by_value["method"]) == "gessl-directclr"


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", sorted(file.stem for file in (CONF / "projector").glob("*.yaml")))
def test_a_projector_may_be_named_as_a_value_or_as_an_option(name):
    by_value = resolve(composed(f"method.projector={name}"))
    assert by_value == resolve(composed(f"projector@method.projector={name}"))
    assert by_value["method"]["projector"]["_target_"].startswith("ssl_lightning.models.projectors.")


@pytest.mark.parametrize(
    "method", sorted(file.stem for file in (CONF / "method").glob("*.yaml") if "projector:" in file.read_text())
)
def test_every_method_takes_another_projector_and_its_settings(method):
    """None of the settings that its own has are left."""
    config = resolve(composed(f"method={method}", "projector@method.projector=linear", "method.projector.outputs=64"))
    linear = {"_target_": "ssl_lightning.models.projectors.linear", "_partial_": True, "outputs": 64}
    assert config["method"]["projector"] == linear


def test_a_named_component_of_a_component():
    config = resolve(composed("method=gessl", "method.base.projector=none"))
    assert config["method"]["base"]["projector"]["_target_"] == "ssl_lightning.models.projectors.none"


# The stem of a backbone

SIZES = {8: "cifar", 48: "cifar", 49: "stl", 112: "stl", 113: "imagenet", 224: "imagenet"}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("override", ["backbone.stem=auto", "dataset.stem=auto", "~dataset.stem"])
@pytest.mark.parametrize(("size", "stem"), SIZES.items())
def test_a_stem_follows_the_size_of_the_images(override, size, stem):
    config = resolve(composed(override, f"dataset.image_size={size}"))
    assert config["backbone"]["stem"] == config["method"]["backbone"]["stem"] == stem


@pytest.mark.one_in(3)
@pytest.mark.parametrize("override", ["backbone.stem=auto", "dataset.stem=auto", "~dataset.stem"])
@pytest.mark.parametrize("dataset", ["digits", "cifar10", "stl10", "imagenet"])
def test_it_is_that_of_the_dataset_and_makes_no_other_run(dataset, override):
    assert resolve(composed(f"dataset={dataset}", override)) == resolved(f"dataset={dataset}")


def test_a_stem_that_is_named_is_kept():
    config = resolve(composed("dataset=cifar10", "backbone.stem=imagenet", "dataset.image_size=224"))
    assert (config["backbone"]["stem"], config["dataset"]["stem"]) == ("imagenet", "cifar")


# Rankings


@pytest.mark.one_in(2)
@pytest.mark.parametrize("subset", ["sas", "prototypes"])
@pytest.mark.parametrize("name", sorted(file.stem for file in (CONF / "proxy").glob("*.yaml")))
def test_a_proxy_may_be_named_as_a_value_or_as_an_option(subset, name):
    by_value = resolve(composed(f"subset={subset}", f"subset.proxy={name}"))
    assert by_value == resolve(composed(f"subset={subset}", f"proxy@subset.proxy={name}"))
    proxy_of(by_value)
    assert by_value["subset"]["proxy"]["method"]["_target_"].lower().endswith(f".{name}")


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", ["labels", "kmeans", "few_labels", "one", "hierarchical_kmeans"])
def test_latent_classes_may_be_named_as_a_value_or_as_an_option(name):
    by_value = resolve(composed("subset=sas", f"subset.latent={name}"))
    assert by_value == resolve(composed("subset=sas", f"latent@subset.latent={name}"))
    kind = by_value["subset"]["latent"]["_target_"].rpartition(".")[2]
    assert kind.lower() == name.replace("_", "")


@pytest.mark.one_in(4)
@pytest.mark.parametrize("subset", ["sas", "prototypes", "semdedup"])
@pytest.mark.parametrize(
    ("group", "name"), [("quota", "proportional"), ("quota", "density"), ("redundancy", "none"), ("latent", "one")]
)
def test_quota_redundancy_and_groups_of_any_rule_may_be_named_in_either_way(subset, group, name):
    by_value = resolve(composed(f"subset={subset}", f"subset.{group}={name}"))
    assert by_value == resolve(composed(f"subset={subset}", f"{group}@subset.{group}={name}"))
    chosen = by_value["subset"][group]
    assert chosen is None if name in ("proportional", "none") else chosen["_target_"].lower().endswith(f".{name}")


SELECTED = [
    (),
    ("seed=3", "batch_size=64", "subset.fraction=0.4", "trainer=ddp_cpu"),
    ("dataset=cifar10", "backbone=resnet18", "method=gessl", "subset.latent=kmeans"),
    ("subset.proxy=supervised", "subset.looks=3", "optimizer=lars"),
    ("experiment=simclr_cifar_sas",),
]


@pytest.mark.one_in(3)
@pytest.mark.parametrize("overrides", SELECTED, ids=str)
def test_ssl_select_takes_what_ssl_train_takes(overrides):
    selected = resolve(composed(*overrides, name="select"), SelectConfig)
    assert selected == resolve(composed("subset=sas", *overrides)) | {"export": None, "lists": []}


@pytest.mark.one_in(9)
@pytest.mark.parametrize("subset", sorted(file.stem for file in (CONF / "subset").glob("*.yaml")))
def test_ssl_select_takes_every_subset(subset):
    overrides = f"subset={subset}", "trainer.max_epochs=7", *NEEDED.get(f"subset={subset}", [])
    selected = resolve(composed(*overrides, name="select"), SelectConfig)
    assert selected == resolve(composed(*overrides)) | {"export": None, "lists": []}


def test_ssl_select_does_not_look_at_what_only_a_training_needs():
    wrong = ("method.temperature=warm", "optimizer.lr=fast", "evaluation.k=few")
    resolve(composed("subset.proxy.run=mine", *wrong, name="select"), SelectConfig)
    with pytest.raises(UserError, match=r"trainer\.max_steps is 'many'"):  # says how it starts processes
        resolve(composed("trainer.max_steps=many", name="select"), SelectConfig)
    for override in wrong:
        assert refused(override).startswith(override.partition("=")[0])
    with pytest.raises(UserError, match=r"subset\.threshold is 'low'"):
        resolve(composed("subset.threshold=low", name="select"), SelectConfig)


def test_resolve_leaves_its_argument_alone():
    config = composed("method.projector=linear")
    before = OmegaConf.to_yaml(config)
    resolve(config)
    assert OmegaConf.to_yaml(config) == before


def test_a_resolved_config_resolves_to_itself():
    config = resolve(composed("method=gessl", "method.base=directclr"))
    assert resolve(OmegaConf.create(config)) == config


def test_paths_that_begin_with_a_tilde_are_those_of_the_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    paths = ('paths.runs="~/runs"', 'paths.data="~"', "dataset=image_folder", 'dataset.root="~/images"')
    plain = resolve(composed(*paths, "subset=file", 'subset.path="~bob?/a"'))
    assert plain["paths"] | {"cache": ""} == {"runs": "/home/ann/runs", "data": "/home/ann", "cache": ""}
    assert plain["dataset"]["root"] == "/home/ann/images"
    assert plain["subset"]["path"] == "~bob?/a"


def test_a_path_that_no_file_can_hold_is_refused():
    message = refused("dataset=image_folder", 'dataset.root="images\udcff"')
    assert message == "dataset.root is 'images\\udcff', a name that is not UTF-8. Rename it, or give a link to it."
