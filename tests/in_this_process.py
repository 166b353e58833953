"""A stand-in for the worker processes, for tests that put something of theirs in the place of something else."""

from __future__ import annotations


class InThisProcess:
    """Stands for `oldphoto.workers.Workers`: the same calls, but here, where the stand-in for the networks is."""

    def __init__(self, make_work, count, timeout=None, show_warnings=False):
        self.make_work = make_work

    def start_ahead(self):
        pass

    def grow(self, count):
        pass

    def __enter__(self):
        self.work = self.make_work()
        return self

    def __exit__(self, *_):
        pass

    def __call__(self, job):
        return self.work(job)

    def kill(self):
        pass
