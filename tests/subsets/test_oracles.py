"""The greedy order of SAS against other people's programs.

Both maximise Σ_{i∈V, j∈S} s_ij − Σ_{i,j∈S} s_ij, which is the cut Σ_{i∉S} Σ_{j∈S} s_ij.
"""

import numpy as np
import pytest
import torch

from benchmarks.selection import cluster
from ssl_lightning.subsets.greedy import graph_cut

MISSING = "needs the extra `oracles`"


def class_of(n, seed):
    features = cluster(torch.empty(n, 8, dtype=torch.float64), torch.Generator().manual_seed(seed), 6)
    return features, (features @ features.T).clamp(min=0).fill_diagonal_(0).numpy()


@pytest.mark.nightly
@pytest.mark.parametrize("memory", [2**31, 2**14])
@pytest.mark.parametrize("seed", range(3))
def test_apricot_finds_the_same_order_and_gains(seed, memory):
    apricot = pytest.importorskip("apricot", reason=MISSING)
    features, similarities = class_of(200, seed)
    order = graph_cut(features, memory=memory)
    theirs = apricot.GraphCutSelection(200, metric="precomputed", optimizer="naive").fit(similarities)
    np.testing.assert_array_equal(order.members, theirs.ranking)
    np.testing.assert_allclose(order.scores, theirs.gains, rtol=0, atol=1e-11)


def test_apricot_resolves_ties_the_same():
    apricot = pytest.importorskip("apricot", reason=MISSING)
    features = torch.randint(-1, 2, (60, 2), generator=torch.Generator().manual_seed(0)).double()
    similarities = (features @ features.T).clamp(min=0).fill_diagonal_(0).numpy()
    order = graph_cut(features)
    assert (np.diff(order.scores) == 0).sum() > 20
    theirs = apricot.GraphCutSelection(60, metric="precomputed", optimizer="naive").fit(similarities)
    np.testing.assert_array_equal(order.members, theirs.ranking)
    np.testing.assert_array_equal(order.scores, theirs.gains)


@pytest.mark.parametrize("memory", [2**31, 2**14])
@pytest.mark.parametrize("seed", range(3))
def test_submodlib_finds_the_same_order_gains_and_values(seed, memory):
    submodlib = pytest.importorskip("submodlib", reason=MISSING)
    features, similarities = class_of(200, seed)
    order = graph_cut(features, memory=memory)
    cut = submodlib.GraphCutFunction(200, "dense", lambdaVal=1.0, ggsijs=similarities)
    picks = cut.maximize(199, stopIfNegativeGain=False, show_progress=False)  # it never takes everything
    members, gains = zip(*picks, strict=True)
    np.testing.assert_array_equal(order.members[:199], members)
    tolerance = 1e-6 * order.scores[0]  # it keeps similarities in single precision
    np.testing.assert_allclose(order.scores[:199], gains, rtol=0, atol=tolerance)
    values = order.scores.cumsum()
    for k in (1, 60, 100, 140):
        assert abs(cut.evaluate(set(order.members[:k].tolist())) - values[k - 1]) < 1e-6 * values.max()
