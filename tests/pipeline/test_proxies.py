"""The runs that rankings are made with."""

from ssl_lightning.config.resolve import resolve
from ssl_lightning.pipeline.proxies import proxies_of
from tests.composing import composed


def nothing_is_trained(config):
    raise AssertionError("nothing is to be trained")


def test_a_backbone_of_its_own_is_that_of_its_method():
    config = resolve(composed("subset=sas", "method.base=directclr", "method=gessl"))
    other = config["backbone"] | {"width": 8}
    config["subset"]["proxy"] |= {"backbone": other, "method": config["method"]}
    (proxy,) = proxies_of(config, 1, nothing_is_trained)
    assert proxy.config["method"]["base"]["backbone"] == other
    assert config["method"]["base"]["backbone"]["width"] == 16
    (usual,) = proxies_of(resolve(composed("subset=sas")), 1, nothing_is_trained)
    assert usual.digest != proxy.digest
