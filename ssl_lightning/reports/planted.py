"""Where a ranking puts what a nuisance has planted among the training images."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64

from ssl_lightning.subsets.ranking import Ranking

PARTS = 10  # of a ranking


class Found(NamedTuple):
    """Planted copies among the images that a ranking holds for redundant. Of a family, an image and its copies, one may
    stay, whichever it is: of f that are redundant, at most f − 1 are right.

    Args:
        right: how many of these are.
        redundant: how many images the ranking holds for redundant.
        planted: how many copies there are.
    """

    right: int
    redundant: int
    planted: int


def copies_before(order: Int64[np.ndarray, " n"], origin: Int64[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """For each place of an order of positions: whether an image of the same origin comes earlier. What is of no origin,
    −1, is no copy."""
    later = np.ones(len(order), np.bool_)
    later[np.unique(origin[order], return_index=True)[1]] = False
    return later & (origin[order] >= 0)


def found_copies(ranking: Ranking, origin: Int64[np.ndarray, " n"]) -> Found | None:
    """None where the ranking looks for no redundant images; they come last in it."""
    if (redundant := ranking.provenance.get("redundant")) is None:
        return None
    of_family = origin[origin >= 0]
    families, size = np.unique(of_family, return_counts=True)
    behind = origin[ranking.order[len(ranking) - redundant :]]
    taken = np.bincount(np.searchsorted(families, behind[behind >= 0]), minlength=len(families))
    return Found(int(np.minimum(taken, size - 1).sum()), redundant, len(of_family) - len(families))


def describe_planted(ranking: Ranking, origin: Int64[np.ndarray, " n"]) -> None:
    """Prints the shares of noise, and of copies of images that come earlier, in each tenth of the ranking, and how many
    of the copies are held for redundant.

    Args:
        origin: see `ImageDataset.origins`.
    """
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    planted = {"noise": origin[ranking.order] < 0, "copies of earlier images": copies_before(ranking.order, origin)}
    parts = min(PARTS, len(ranking))
    for name, places in planted.items():
        if not places.any():
            continue
        console.print(f"{name} in each tenth of the ranking", style="italic")
        table = Table(box=None, padding=(0, 1, 0, 0))
        shares = [part.mean() for part in np.array_split(places, parts)]
        for number in range(1, parts + 1):
            table.add_column(f"{number / parts:.0%}", justify="right")
        table.add_row(*(f"{share:.0%}" for share in shares))
        console.print(table)
    found = found_copies(ranking, origin)
    if found is not None and found.planted:
        precision = f", precision {found.right / found.redundant:.1%}" if found.redundant else ""
        console.print(
            f"of {found.planted:,} planted copies, {found.right:,} are held for redundant (recall "
            f"{found.right / found.planted:.1%}{precision})"
        )
