"""A run's config.yaml is read as OmegaConf reads it."""

import math

import pytest
from omegaconf import OmegaConf

from ssl_lightning.files import write_text
from ssl_lightning.reports.records import records_of
from ssl_lightning.runs.run import Run
from tests.reports.test_report import Folder, config_of, forget

__all__ = ["forget"]

FLOATS = (1e-3, 1e-5, 1.5e-300, 1e16, 1e22, 0.1, 1.0, -0.0, math.inf, -math.inf)
OTHERS = (True, False, None, 0, -1, 10**20, [], {}, [1, [2.5, None], {"a": "b"}])
STRINGS = (
    *("1e-3", "1E5", "1.0", ".5", "1.", "010", "0x10", "1_000", "1:30", ".inf", ".nan", "2020-01-01"),
    *(
        "true",
        "yes",
        "on",
        "n",
        "null",
        "~",
        "",
        " lead",
        "a: b",
        "#a",
        "- x",
        "[1]",
        "*a",
        "&a",
        "!t",
        "%p",
        "=",
        "<<",
    ),
    *("'q'", '"q"', "é\n x", "\u2028", "${x}", "</script>"),
)


@pytest.mark.parametrize("value", [*FLOATS, *OTHERS, *STRINGS], ids=repr)
def test_values_that_omegaconf_has_written(tmp_path, value):
    run = Run(tmp_path)
    OmegaConf.save(OmegaConf.create({"method": {}, "key": {"inner": value}}), run.config_file)
    (found,) = run.config()["key"].values()
    assert repr(found) == repr(value)
    assert repr(run.config()) == repr(OmegaConf.to_container(OmegaConf.load(run.config_file)))


@pytest.mark.parametrize(
    "text",
    ["1e-3", "1E5", "-1e3", "1.e5", ".5e-3", "1.5e3", "+2e0", "1e", "e5", "08", "1_000", ".INF", "no", "~", "0x1f"],
)
def test_values_written_by_hand(tmp_path, text):
    run = Run(tmp_path)
    write_text(run.config_file, f"method: {{}}\nkey: {text}\n")
    assert repr(run.config()) == repr(OmegaConf.to_container(OmegaConf.load(run.config_file)))


@pytest.mark.parametrize("method", ["simclr", "gessl", "supervised"])
def test_whole_configs(tmp_path, method):
    run = Folder(tmp_path / "runs" / "grid").begin(f"method={method}", fraction=0.05)
    assert run.config() == config_of(f"method={method}", fraction=0.05)
    whole = OmegaConf.to_container(OmegaConf.load(run.config_file))
    assert whole.pop("schema") == 2
    assert whole.pop("identity") == run.described()[0].as_dict()
    assert run.config() == whole
    (record,) = records_of([run])
    assert record.config == run.config()
