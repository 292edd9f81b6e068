"""Rankings that are handed on: the folder, and what `subset=file` makes of it."""

import json
import re

import numpy as np
import pytest

from ssl_lightning.data.nuisance import Duplicates
from ssl_lightning.errors import UserError
from ssl_lightning.export.ranking import publish
from ssl_lightning.subsets.file import File
from ssl_lightning.subsets.quota import Balanced
from ssl_lightning.subsets.random import Random, RandomBalanced
from ssl_lightning.subsets.ranking import Ranking
from tests.data.synthetic import in_memory
from tests.subsets.cutting import mask_of

LENGTH = 53
DATASET = in_memory(np.arange(LENGTH) ** 2 % 7)
FRACTIONS = [i / LENGTH for i in range(1, LENGTH + 1)]


def made(rule=RandomBalanced, **more) -> Ranking:
    ranking = rule(seed=11, **more).rank(DATASET)
    scores = np.random.default_rng(0).normal(size=LENGTH)
    return Ranking(ranking.order, ranking.latent_class, scores, ranking.provenance, ranking.keys)


RANKINGS = {
    "of labels": made(),
    "of one group": made(Random),
    "with a quota": made(quota=Balanced()),
    "in part": Ranking(made().order, made().latent_class, made().score, made().provenance | {"max_fraction": 0.5}),
}


@pytest.mark.parametrize("name", RANKINGS)
def test_the_masks_are_the_same_bit_for_bit(tmp_path, name):
    ranking = RANKINGS[name]
    publish(ranking, tmp_path / "given")
    assert sorted(file.name for file in tmp_path.glob("given/*")) == ["README.md", "provenance.json", "ranking.npz"]
    assert [path.name for path in tmp_path.iterdir()] == ["given"]
    rule = File(path=str(tmp_path / "given"))
    for fraction in FRACTIONS:
        if fraction <= ranking.max_fraction:
            assert mask_of(rule, DATASET, fraction).digest == ranking.mask(fraction).digest
    if ranking.keys is None and ranking.max_fraction == 1:
        assert mask_of(rule, DATASET, 0.4, "floor").digest == ranking.mask(0.4, "floor").digest
    assert mask_of(rule, DATASET, None).size == ranking.mask(ranking.max_fraction).size
    np.testing.assert_array_equal(rule.ranking(DATASET).score, ranking.score)


def test_on_other_images_it_is_refused_with_one_message(tmp_path):
    publish(made(), tmp_path / "given")
    other = in_memory(np.arange(LENGTH) % 5)
    with pytest.raises(UserError) as caught:
        mask_of(File(path=str(tmp_path / "given")), other, 0.3)
    message = str(caught.value)
    assert str(DATASET.fingerprint()) in message
    assert str(other.fingerprint()) in message
    assert "\n" not in message


def test_a_folder_without_a_ranking(tmp_path):
    with pytest.raises(UserError, match=r"there is no file .*ranking\.npz.*folder of ssl-select export="):
        mask_of(File(path=str(tmp_path)), DATASET, 0.3)


def test_nothing_says_where_it_was_made(tmp_path):
    ranking = made()
    settings = {"file": str(tmp_path / "secret" / "mine.npy"), "list": ["/home/me/other.npy", "relative/x"]}
    ranking.provenance["parameters"] = settings
    publish(ranking, tmp_path / "given")
    loaded = Ranking.load(tmp_path / "given" / "ranking.npz", None)
    assert loaded.provenance["parameters"] == {"file": "mine.npy", "list": ["other.npy", "relative/x"]}
    for file in ("README.md", "provenance.json"):
        text = (tmp_path / "given" / file).read_text()
        assert "secret" not in text
        assert "/home" not in text
    assert ranking.provenance["parameters"] == settings


def test_the_card_says_what_it_is_as_text(tmp_path):
    ranking = made()
    ranking.provenance.update(rule="<script>alert(1)</script> | x", seconds=12.5, proxy_seconds=3.25)
    publish(ranking, tmp_path / "given")
    card = (tmp_path / "given" / "README.md").read_text()
    assert "<script>" not in card
    assert "| seconds of ranking | 12.5 |" in card
    assert "| seed | 11 |" in card
    assert DATASET.fingerprint().digest in card
    assert re.search(r"ssl-train dataset=memory subset=file subset\.path=\. subset\.fraction=0\.3\n", card)
    said = json.loads((tmp_path / "given" / "provenance.json").read_text())
    assert said["fingerprint"] == DATASET.fingerprint().as_dict()
    assert said["seed"] == 11
    assert set(said["versions"]) == {"ssl-lightning", "numpy", "torch"}


def test_the_lines_of_the_card_for_numpy_run(tmp_path, monkeypatch):
    ranking = made()
    publish(ranking, tmp_path / "given")
    monkeypatch.chdir(tmp_path / "given")
    (lines,) = re.findall(r"```python\n(.*?)```", (tmp_path / "given" / "README.md").read_text(), flags=re.S)
    names: dict = {}
    exec(lines, names)
    assert names["kept"].tolist() == ranking.mask(0.3).positions.tolist()


def test_the_same_ranking_may_be_written_again(tmp_path):
    publish(made(), tmp_path / "given")
    again = made()
    again.provenance["seconds"] = 3.0
    publish(again, tmp_path / "given")
    assert Ranking.load(tmp_path / "given" / "ranking.npz", None).cost == {"selection_seconds": 3.0}


def test_what_would_be_lost_is_refused(tmp_path):
    given = tmp_path / "given"
    publish(made(), given)
    with pytest.raises(UserError, match="holds another ranking: random_balanced of memory"):
        publish(made(Random), given)
    (given / "README.md").write_text("my notes")
    with pytest.raises(UserError, match=r"README\.md was changed since it was made"):
        publish(made(), given)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(UserError, match="nothing that ssl-select has made"):
        publish(made(), tmp_path / "mine")
    assert [file.name for file in tmp_path.glob("mine/*")] == ["thesis.tex"]


def test_a_card_says_what_was_done_to_the_images(tmp_path):
    dataset = in_memory(np.arange(LENGTH) ** 2 % 7)
    dataset.nuisance = Duplicates(share=0.2)
    publish(RandomBalanced(seed=11).rank(dataset), tmp_path / "given")
    card = (tmp_path / "given" / "README.md").read_text()
    assert re.search(r"^ssl-train dataset=\S+ dataset\.nuisance=duplicates subset=file", card, re.MULTILINE)
    assert "share 0.2" in card
    publish(made(), tmp_path / "plain")
    assert "nuisance" not in (tmp_path / "plain" / "README.md").read_text()
