"""Teams within one process."""

import threading

from ssl_lightning.processes import ProcessGroup


class Threads:
    """Processes that are threads."""

    def __init__(self, size):
        self.barrier = threading.Barrier(size)
        self.results, self.threads = {}, []

    def start(self, rank, function):
        def broadcast(value):
            if rank == 0:
                self.told = value
            self.barrier.wait(60)
            told = self.told
            self.barrier.wait(60)
            return told

        processes = ProcessGroup(rank, self.barrier.parties, lambda: self.barrier.wait(60) and None, broadcast)

        def run():
            try:
                self.results[rank] = function(processes)
            except threading.BrokenBarrierError:
                self.results[rank] = "a member did not come"

        self.threads.append(threading.Thread(target=run, daemon=True))
        self.threads[-1].start()

    def join(self):
        for thread in self.threads:
            thread.join(60)
        return [self.results[rank] for rank in sorted(self.results)]
