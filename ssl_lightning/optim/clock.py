"""How far a training is, where epochs may be shorter than was planned."""

from dataclasses import dataclass


@dataclass
class Clock:
    """Optimizer steps of a training, and those of one that sees all images in every epoch, by which it is scheduled.

    An epoch of k steps takes as much of the schedule as one of all images, of L: its i-th step stands for step
    ⌊i·L/k⌋ of that. Where training ends after a number of steps, the schedule is done when that is, or all epochs are,
    whichever comes first.

    Args:
        total: steps of a training that sees all images.
        per_epoch: L.
        epochs: how many there are at most; None for no limit.
        limit: how many steps there are at most; None for no limit.
    """

    total: int
    per_epoch: int
    epochs: int | None = None
    limit: int | None = None
    _epoch: tuple[int, int, int] | None = None  # number, first step, steps

    def begin(self, epoch: int, first: int, steps: int) -> None:
        """From step `first` on, the epoch of this number, from 0, has so many steps."""
        self._epoch = epoch, first, steps

    def scheduled(self, step: int) -> int:
        """The step of a training on all images that this one, of the present epoch, stands for; both from 0."""
        if self._epoch is None:
            return step
        epoch, first, steps = self._epoch
        if self.epochs is None:
            return step
        stands_for = epoch * self.per_epoch + (step - first) * self.per_epoch // steps
        of_epochs = stands_for * self.total // (self.epochs * self.per_epoch)
        return of_epochs if self.limit is None else max(of_epochs, step * self.total // self.limit)

    def progress(self, step: int) -> float:
        """Share of the training that is done after so many steps, in [0, 1]."""
        return min(1.0, self.scheduled(step) / max(1, self.total))

    @property
    def planned(self) -> int:
        """How many steps training takes as far as is known: exact in the last epoch, and otherwise as if all epochs
        after this one saw all images."""
        if self._epoch is None:
            return self.total
        epoch, first, steps = self._epoch
        limits = [] if self.limit is None else [self.limit]
        if self.epochs is not None:
            limits.append(first + steps + (self.epochs - epoch - 1) * self.per_epoch)
        return min(limits)
