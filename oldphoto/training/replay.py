"""Show examples again while the next ones are made: a GPU trains faster than processors age photographs."""

from __future__ import annotations

import atexit
from collections.abc import Iterator
from threading import Condition, Event, Thread

import torch

from oldphoto.training.datasets import Batch, Maker, batches
from oldphoto.training.loop import Settings

FILLED = 0.125
"""Share of the places that are filled before the first batch is drawn."""


class Replay:
    """The latest examples of a stream, kept on a device in half precision; batches are drawn from them at random.

    Experience replay (Lin, *Machine Learning* 8, 1992): how often an example is shown depends on how much faster
    training is than the stream.
    """

    def __init__(self, capacity: int, device: str, seed: int) -> None:
        self.capacity = capacity
        self.added = 0
        self._device = device
        self._places: Batch = {}
        self._failure: BaseException | None = None
        self._changed = Condition()
        self._stopped = Event()
        self._chances = torch.Generator().manual_seed(seed)

    def add(self, batch: Batch) -> None:
        """Keep the examples of a batch, in place of the oldest where there is no room."""
        size = len(next(iter(batch.values())))
        with self._changed:
            if not self._places:
                self._places = {
                    key: torch.empty(self.capacity, *pictures.shape[1:], dtype=torch.float16, device=self._device)
                    for key, pictures in batch.items()
                }
            places = (self.added + torch.arange(size)) % self.capacity
            for key, pictures in batch.items():
                self._places[key].index_copy_(0, places.to(self._device), pictures.to(self._device, torch.float16))
            self.added += size
            self._changed.notify_all()

    def draw(self, size: int) -> Batch:
        """A batch of ``size`` examples, all mirrored or none. Waits for the first; raises what the stream raised."""
        with self._changed:
            self._changed.wait_for(lambda: self._failure or self.added >= max(1, FILLED * self.capacity))
            if self._failure:
                raise self._failure
            places = torch.randint(min(self.added, self.capacity), (size,), generator=self._chances).to(self._device)
            batch = {key: pictures[places].float() for key, pictures in self._places.items()}
        if torch.rand((), generator=self._chances) < 0.5:
            batch = {key: pictures.flip(3) for key, pictures in batch.items()}
        return batch

    def follow(self, stream: Iterator[Batch]) -> None:
        """Add what comes of a stream, until `stop`."""
        try:
            while not self._stopped.is_set():
                self.add(next(stream))
        except BaseException as failure:
            with self._changed:
                self._failure = failure
                self._changed.notify_all()

    def stop(self) -> None:
        """Let `follow` return after the batch that it waits for."""
        self._stopped.set()


def training_batches(make: Maker, settings: Settings, seed: int, size: int | None = None) -> Iterator[Batch]:
    """Endless batches of what ``make`` makes: of each example once or, with ``settings.replay``, of the latest many.

    ``size``: of a batch, where it is not that of the settings.
    """
    stream = batches(make, size or settings.batch, seed, settings.workers)
    return _drawn(stream, settings) if settings.replay else stream


def _drawn(stream: Iterator[Batch], settings: Settings) -> Iterator[Batch]:
    memory = Replay(settings.replay, settings.device, settings.seed)
    memory.add(first := next(stream))
    size = len(next(iter(first.values())))
    follower = Thread(target=memory.follow, args=(stream,), daemon=True)
    follower.start()

    @atexit.register  # a thread that is still at work while Python ends aborts it
    def stop() -> None:
        memory.stop()
        follower.join()

    try:
        while True:
            yield memory.draw(size)
    finally:
        atexit.unregister(stop)
        stop()
