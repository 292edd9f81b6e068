"""Views of several sizes: a tensor for each size."""

from collections.abc import Callable, Sequence

from torch import Tensor


def by_size(sizes: Sequence[int], make: Callable[[int, int], Tensor]) -> tuple[Tensor, ...]:
    """`make(number of views, size)` for each size that views have, largest first."""
    return tuple(make(sizes.count(size), size) for size in sorted(set(sizes), reverse=True))


def views_of(made: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
    """The tensor of each view in what `by_size` has made."""
    of_size = {some.shape[-1]: iter(some) for some in made}
    return [next(of_size[size]) for size in sizes]
