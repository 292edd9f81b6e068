"""The runs that rankings are made with."""

import pytest

from ssl_lightning.config.resolve import resolve
from ssl_lightning.errors import UserError
from ssl_lightning.pipeline.parts import subset_of
from tests.composing import composed


def nothing_is_trained(config):
    raise AssertionError("nothing is to be trained")


def test_a_backbone_of_its_own_is_that_of_its_method():
    config = resolve(composed("subset=sas", "method.base=directclr", "method=gessl"))
    other = config["backbone"] | {"width": 8}
    config["subset"]["proxy"] |= {"backbone": other, "method": config["method"]}
    (proxy,) = subset_of(config, nothing_is_trained)[1]
    assert proxy.config["method"]["base"]["backbone"] == other
    assert config["method"]["base"]["backbone"]["width"] == 16
    (usual,) = subset_of(resolve(composed("subset=sas")), nothing_is_trained)[1]
    assert usual.digest != proxy.digest


def proxies_with(*overrides):
    return subset_of(resolve(composed("subset=elfs", *overrides)), nothing_is_trained)[1]


def test_classifiers_of_groups_are_told_apart_by_what_the_groups_depend_on(tmp_path):
    """Before there are any: nothing is trained for it, and nothing read."""
    embedder, *classifiers = proxies_with()
    plain = subset_of(resolve(composed("subset=el2n")), nothing_is_trained)[1]
    assert [len(classifiers), len(plain)] == [3, 3]
    assert "pseudo_labels" not in embedder.config["dataset"]
    assert embedder.config["method"]["_target_"].endswith("SimCLR")
    changes = (
        "subset.pseudo_labels.latent.clusters=7",
        "subset.pseudo_labels.latent=hierarchical_kmeans",
        "subset.pseudo_labels.looks=2",
        "subset.pseudo_labels.seed=1",
        "subset.embedder.trainer.max_epochs=7",
    )
    digests = [one[1].digest for one in (plain, (embedder, *classifiers), *(proxies_with(one) for one in changes))]
    assert len({*digests}) == len(digests)
    for same in (f"paths.cache={tmp_path}", "subset.pseudo_labels.accelerator=cpu", "subset.runs=2"):
        assert proxies_with(same)[1].digest == classifiers[0].digest
    assert proxies_with("subset.pseudo_labels.latent.clusters=7")[0].digest == embedder.digest


@pytest.mark.parametrize(
    ("latent", "classes"), [("=kmeans", 10), (".clusters=7", 7), ("=hierarchical_kmeans", 100), ("=one", 1)]
)
def test_a_classifier_has_as_many_classes_as_there_are_groups(latent, classes):
    for proxy in proxies_with(f"subset.pseudo_labels.latent{latent}")[1:]:
        assert proxy.config["method"]["num_classes"] == classes
        assert proxy.config["dataset"]["num_classes"] == 10


def test_groups_need_embeddings():
    with pytest.raises(UserError, match=r"subset\.embedder is null.* Choose \+proxy@subset\.embedder=simclr\."):
        subset_of(resolve(composed("subset=el2n", "+pseudo_labels@subset.pseudo_labels=clusters")), nothing_is_trained)
    subset_of(
        resolve(
            composed("subset=el2n", "+pseudo_labels@subset.pseudo_labels=clusters", "+proxy@subset.embedder=simclr")
        ),
        nothing_is_trained,
    )
