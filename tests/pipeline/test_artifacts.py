"""logger.wandb.artifacts: the encoder and the ranking of a run, as wandb's files of an offline run say."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssl_lightning.data.dataset import Fingerprint
from ssl_lightning.pipeline.artifacts import used_ranking
from ssl_lightning.runs.run import find_runs
from ssl_lightning.subsets.ranking import Ranking
from tests.composing import TINY
from tests.loggers.test_wandb import records

pytestmark = pytest.mark.usefixtures("no_login")

OFFLINE = ("logger=wandb", "logger.wandb.mode=offline", "logger.wandb.artifacts=true")


def artifacts(file: Path) -> dict[str, dict[str, Any]]:
    """By type."""
    found = [record["artifact"] for record in records(file) if record["type"] == "artifact"]
    return {one["type"]: one for one in found}


def test_an_offline_run_has_both_with_their_lineage(tmp_path, command):
    """And ssl-sync builds the same, once."""
    np.save("list.npy", np.arange(100))
    done = command("ssl-train", *TINY, *OFFLINE, "subset=file", "subset.path=list.npy", "subset.fraction=null")
    assert done.code == 0, done.err
    (run,) = find_runs([tmp_path / "runs"])
    (file,) = tmp_path.glob("runs/default/wandb/offline-run-*/*.wandb")
    logged = artifacts(file)
    assert set(logged) == {"encoder", "ranking"}
    ranking, encoder = logged["ranking"], logged["encoder"]
    assert ranking["use_after_commit"]
    assert not encoder.get("use_after_commit")
    assert [one["local_path"] for one in ranking["manifest"]["contents"]] == [str(tmp_path / "list.npy")]
    places = {one["path"]: Path(one["local_path"]) for one in encoder["manifest"]["contents"]}
    assert set(places) == {"model.safetensors", "preprocessing.json", "README.md"}
    assert {place.parent for place in places.values()} == {run.folder / "encoder"}
    said = json.loads(encoder["metadata"])
    assert said["metrics"] == run.results()["metrics"]
    assert said["identity"] == run.results()["identity"]

    assert "1 built offline" in command("ssl-sync", "runs", "--mode", "offline").out
    (built,) = run.folder.glob("wandb/offline-run-*/*.wandb")
    again = artifacts(built)
    assert {kind: one["digest"] for kind, one in again.items()} == {kind: one["digest"] for kind, one in logged.items()}
    assert [again[kind]["name"] for kind in logged] == [logged[kind]["name"] for kind in logged]
    assert command("ssl-sync", "runs", "--mode", "offline").out.endswith("1 unchanged\n")


@pytest.mark.nightly
def test_none_unless_they_are_asked_for(tmp_path, command):
    done = command("ssl-train", *TINY, *OFFLINE[:2])
    assert done.code == 0, done.err
    (file,) = tmp_path.glob("runs/default/wandb/offline-run-*/*.wandb")
    assert artifacts(file) == {}
    assert not list(tmp_path.glob("runs/*/*/encoder"))


def test_the_ranking_that_a_run_has_used(tmp_path):
    kept = tmp_path / "cache/rankings/sas-0123.npz"
    kept.parent.mkdir(parents=True)
    provenance = {"rule": "sas", "seed": 0, "fingerprint": Fingerprint("digits", "train", 3, "0" * 16).as_dict()}
    Ranking(np.arange(3), np.zeros(3, np.int64), np.full(3, np.nan), provenance).save(kept)
    of_cache = {"subset": {"cache": str(tmp_path / "cache")}}
    assert used_ranking(of_cache, {"mask": {"ranking": kept.name}}) == kept
    assert used_ranking(of_cache, {"mask": {"ranking": "../rankings/sas-0123.npz"}}) == kept  # its name alone counts
    assert used_ranking(of_cache, {"mask": {"ranking": "gone.npz"}}) is None
    assert used_ranking(of_cache, {"mask": {}}) is None
    published = tmp_path / "published"
    published.mkdir()
    assert used_ranking({"subset": {"path": str(published)}}, {"mask": {}}) is None
    shutil.copy(kept, published / "ranking.npz")
    assert used_ranking({"subset": {"path": str(published)}}, {"mask": {}}) == published / "ranking.npz"


@pytest.mark.parametrize("name", ["secret.txt", "secret", "secret.npy", "secret.npz"])
def test_no_other_file_is_handed_over(tmp_path, name):
    """Whatever somebody else's run says that it was trained on."""
    (tmp_path / name).write_text("my password")
    assert used_ranking({"subset": {"path": str(tmp_path / name)}}, {"mask": {}}) is None
    (tmp_path / "rankings").mkdir()
    (tmp_path / name).rename(tmp_path / "rankings" / name)
    assert used_ranking({"subset": {"cache": str(tmp_path)}}, {"mask": {"ranking": name}}) is None
