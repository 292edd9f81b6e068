"""Where a ranking puts what was planted: as a loop over it counts."""

import numpy as np
import pytest

from ssl_lightning.data.nuisance import Duplicates, Noise
from ssl_lightning.data.views import Augment, View
from ssl_lightning.reports.planted import copies_before, describe_planted, found_copies
from ssl_lightning.subsets.latent import One
from ssl_lightning.subsets.random_in_groups import RandomInGroups
from ssl_lightning.subsets.ranking import Ranking
from ssl_lightning.subsets.redundancy import SemDeDup
from tests.data.synthetic import in_memory
from tests.subsets.proxies import Toy, given


def ranking(order, **provenance) -> Ranking:
    n = len(order)
    return Ranking(np.array(order), np.zeros(n, np.int64), np.full(n, np.nan), {"seed": 0, **provenance})


@pytest.mark.parametrize("seed", range(10))
def test_copies_and_those_found_are_those_of_a_loop(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 60))
    origin = rng.integers(-1, n // 2 + 1, n)
    order = rng.permutation(n)
    seen: set[int] = set()
    expected = []
    for position in order:
        expected.append(origin[position] >= 0 and origin[position] in seen)
        seen.add(int(origin[position]))
    assert copies_before(order, origin).tolist() == expected
    redundant = int(rng.integers(0, n + 1))
    found = found_copies(ranking(order, redundant=redundant), origin)
    behind = origin[order[n - redundant :]].tolist() if redundant else []
    families = {of: origin.tolist().count(of) for of in origin.tolist() if of >= 0}
    assert found == (
        sum(min(behind.count(of), size - 1) for of, size in families.items()),
        redundant,
        sum(size - 1 for size in families.values()),
    )
    assert found_copies(ranking(order), origin) is None


@pytest.mark.parametrize("seed", range(3))
def test_by_an_exact_embedding_all_but_one_of_each_family_come_last(seed, capsys):
    """Images of noise are far from one another, and the embedding is the image."""
    dataset = in_memory(np.zeros(200, np.int64))
    dataset.images = np.random.default_rng(seed).integers(0, 256, (200, 1, 8, 8), np.uint8)
    dataset.image_size = 8
    dataset.nuisance = Duplicates(share=0.4, crop=1.0, seed=seed)
    proxy = given(Toy(lambda images: images.flatten(1)))
    rule = RandomInGroups(
        latent=One(), redundancy=SemDeDup(epsilon=0.01), augment=Augment([View()]), accelerator="cpu", seed=3
    )
    made, origin = rule.rank(dataset, [proxy]), dataset.origins().numpy()
    assert made.provenance["nuisance"] == {"name": "Duplicates", "share": 0.4, "crop": 1.0, "flip": 0.0, "seed": seed}
    found = found_copies(made, origin)
    assert found == (found.planted, found.planted, 80)
    assert copies_before(made.order, origin).tolist() == [False] * 120 + [True] * 80
    describe_planted(made, origin)
    assert "of 80 planted copies, 80 are held for redundant (recall 100.0%, precision 100.0%)" in " ".join(
        capsys.readouterr().out.split()
    )


def test_noise_is_counted_by_tenths(capsys):
    plan = Noise(share=0.5).plan(np.zeros(100, np.int64))
    noise = plan.origin < 0
    describe_planted(ranking(np.concatenate([np.flatnonzero(~noise), np.flatnonzero(noise)])), plan.origin)
    assert capsys.readouterr().out.split() == [
        *["noise", "in", "each", "tenth", "of", "the", "ranking"],
        *(f"{tenth}0%" for tenth in range(1, 11)),
        *["0%"] * 5,
        *["100%"] * 5,
    ]
