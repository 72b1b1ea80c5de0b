"""A slide's tiles spread over several devices of one machine: each looks at a part, as the jobs of a cluster do."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pathopan.config import Config
from pathopan.inference.child import Answer
from pathopan.inference.devices import Devices
from pathopan.manifest import SlideEntry
from pathopan.record import SlideRecord
from pathopan.stages import Engine, Job, Progress, Tiling, predict_shards, shard_plan, tile_slide


class _Request(NamedTuple):
    entry: SlideEntry
    folder: Path
    workers: int
    tissue: Path | None
    shards: range


class Spread:
    """A process for each GPU, which keeps its network from slide to slide.

    Parameters
    ----------
    bundle : str or Path
        Name or folder of the network.
    config : Config
        Settings.
    device : str
        ``auto`` or ``cuda``: on those GPUs. ``cpu``: as many processes on the CPU, which is for tests.
    gpus : sequence of int
        Numbers of the GPUs.
    patience_s : float
        A process that does nothing for so long is given up.
    """

    def __init__(
        self, bundle: str | Path, config: Config, *, device: str, gpus: Sequence[int], patience_s: float
    ) -> None:
        """Start the processes."""
        starts = [partial(_start, bundle, config, device, place) for place in gpu_places(device, gpus)]
        self._devices = Devices(starts, patience_s=patience_s)

    def predict(self, job: Job, tiling: Tiling, shards: range, progress: Progress) -> dict[str, Any]:
        """Look at the tiles of some shards; see :func:`pathopan.stages.predict_shards`, whose result is the same.

        Raises
        ------
        ProcessDied
            If a process died; what it had finished is kept.
        RuntimeUnavailable
            If there is no such GPU.
        """
        plan, count = shard_plan(job, tiling), len(self._devices)
        total = sum(len(plan.tiles(shard)) for shard in shards)
        cuts = [shards[len(shards) * i // count : len(shards) * (i + 1) // count] for i in range(count)]
        requests = [_Request(job.entry, job.folder, job.workers, job.tissue, cut) for cut in cuts]
        answers = self._devices.ask(requests, lambda done: progress("predict", done, total))
        ran = [answer for answer in answers if answer["computed"]]
        told = {name: ", ".join(sorted({a[name] for a in ran})) for name in ("runtime", "device", "precision") if ran}
        return {"tiles": total, "computed": sum(answer["computed"] for answer in answers), **told}

    def close(self) -> None:
        """End the processes."""
        self._devices.close()


def gpu_places(device: str, gpus: Sequence[int]) -> list[str]:
    """Name the devices of several GPUs.

    Examples
    --------
    >>> gpu_places("auto", [0, 1]), gpu_places("cpu", [0, 1])
    (['cuda:0', 'cuda:1'], ['cpu', 'cpu'])
    """
    return ["cpu" if device == "cpu" else f"cuda:{gpu}" for gpu in gpus]


def _start(bundle: str | Path, config: Config, device: str, place: str) -> tuple[None, Answer]:
    """Be the process of one device."""
    engine = Engine(bundle, config, device=device, place=place)

    def answer(request: _Request, tell: Progress) -> dict[str, Any]:
        job = Job(request.entry, config, engine, request.folder, workers=request.workers, tissue=request.tissue)
        tiling = tile_slide(job, SlideRecord.open(job.folder / "record.json"))  # chosen before: this reads them
        return predict_shards(job, tiling, request.shards, tell)

    return None, answer
