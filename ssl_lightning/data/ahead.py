"""The views of the next batch, while the step of this one is given to the GPU."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from ssl_lightning.data.batch import Batch, Stored
from ssl_lightning.data.loading import Loader

Made = tuple[Batch, "torch.cuda.Event | None"]


class Ahead(Loader):
    """Batches of another loader with their views, which a thread makes one batch ahead, on a stream of its own: a step
    of a small network takes a GPU less time than it takes a host to ask for it. The numbers are the same.

    The thread begins when `begin` is called. That is best done before the backward pass, in which the host runs no
    Python: earlier, both would wait for the interpreter. Without it batches are made when they are asked for. All are
    made by the thread, the first too, so that what is compiled is compiled in one place.

    Args:
        loader: of a resident store.
        views: of a stored batch and its number.
        device: where views are made.
    """

    def __init__(self, loader: Loader, views: Callable[[Stored, int], Batch], device: torch.device) -> None:
        super().__init__(loader.sampler, loader.number)
        self.loader = loader
        self.views = views
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._thread: ThreadPoolExecutor | None = None
        self._next: tuple[int, Future[Made]] | None = None
        self._number = -1  # of the batch that was asked for last

    def begin(self) -> None:
        """Has the thread make the batch after the last, unless it does so already, or it is not known yet what that
        holds."""
        if self._next is None and self.sampler.holds(self._number + 1):
            self._ask(self._number + 1)

    def batch(self, number: int) -> Batch:
        if self._next is None or self._next[0] != number:  # the first, or one after a jump
            self._ask(number)
        assert self._next is not None
        made, self._next, self._number = self._next[1], None, number
        batch, ready = made.result()
        if ready is not None:
            here = torch.cuda.current_stream(self.device)
            here.wait_event(ready)
            for tensor in (*batch.views, batch.label, batch.index, batch.weight):
                if tensor is not None:
                    tensor.record_stream(here)  # its memory is free again when this stream has done with it
        return batch

    def _ask(self, number: int) -> None:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "views")
        self._next = number, self._thread.submit(self._make, number)

    def _make(self, number: int) -> Made:
        with torch.cuda.stream(self._stream):  # None: nothing happens
            stored = self.loader.batch(number)
            assert isinstance(stored, Stored)
            images, label, index = stored
            assert isinstance(images, torch.Tensor)
            images, label, index = (tensor.to(self.device, non_blocking=True) for tensor in (images, label, index))
            batch = self.views(Stored(images, label, index), number)
            return batch, None if self._stream is None else self._stream.record_event()

    def stop(self) -> None:
        """Ends the thread; the next batch starts another."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
        self._thread = self._next = None
