"""Fixtures that every room uses."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENCV_FOR_THREADS_NUM", "1")
os.environ.setdefault("NUMBA_THREADING_LAYER", "workqueue")  # numba on OpenVINO's TBB waited at exit, without end

settings.register_profile(
    "pathopan",
    deadline=None,
    max_examples=40,
    derandomize="CI" in os.environ,  # a build must not fail by chance; developers keep searching
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("pathopan")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

LONGEST = ("test_workflows_slurm.py", "test_hostile_corpus.py", "test_notebooks.py", "test_overlap.py")
"""Files whose tests take minutes: first, so that no process ends with one while the other has nothing left to do."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files, skip what this machine cannot run, and say why."""
    turn = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: turn.get(item.path.name, len(turn)))
    for item in items:
        if item.get_closest_marker("gpu") and not _has_cuda():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
        if item.get_closest_marker("data") and not SHARED_DATA.is_dir():
            item.add_marker(pytest.mark.skip(reason=f"needs the shared data folder {SHARED_DATA}"))


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(scope="session", autouse=True)
def in_line() -> Iterator[None]:
    """Slides run in the tests' own process, so that a test can put the truth in the network's place.

    What happens in a child process is tested in test_isolation.py and tests/hostile.
    """
    from pathopan import pipeline

    def open_in_line(settings, _keep_open):
        return pipeline.InLine(partial(pipeline.start_attempts, settings))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "open_worker", open_in_line)
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real slides and data sets, which is not part of the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"needs the shared data folder {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def synthetic_slide(tmp_path_factory: pytest.TempPathFactory):
    """A pyramidal TIFF at 0.5 um/px, 2048 x 1536 pixels, written once, with its truth."""
    from pathopan.datasets.synthetic import make_slide

    return make_slide(tmp_path_factory.mktemp("synthetic") / "synthetic.tif", size_px=(2048, 1536), mpp=0.5, seed=0)


@pytest.fixture(scope="session")
def results_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two slides and a failed one, made up: a square of tumor in stroma, nuclei on a lattice."""
    from results_made_up import make_results

    return make_results(tmp_path_factory.mktemp("results") / "run")


@pytest.fixture(scope="session")
def truth_run(tmp_path_factory: pytest.TempPathFactory, synthetic_slide) -> Path:
    """A finished run of the synthetic slide, by a network that answers with the truth. Copy it before you change it."""
    import oracle

    from pathopan.batch import RunSettings
    from pathopan.config import Config
    from pathopan.console import LineWatcher
    from pathopan.manifest import SlideEntry
    from pathopan.network.bundle import save_bundle
    from pathopan.pipeline import run_cohort

    folder = tmp_path_factory.mktemp("truth")
    bundle = oracle.tiny_bundle(step=512, halo=64)
    save_bundle(folder / "bundle", bundle, oracle.tiny_net(bundle))
    with pytest.MonkeyPatch.context() as patch, (folder / "log.txt").open("w") as log:
        patch.setattr("pathopan.stages.open_runtime", lambda *_args, **_kwargs: oracle.OracleRuntime())
        settings = RunSettings(folder / "run", folder / "bundle", Config())
        outcome = run_cohort([SlideEntry("S-1", synthetic_slide.path)], settings, LineWatcher(log))
    assert outcome.done == 1, outcome.failures
    return folder / "run"


@pytest.fixture
def small_bundle(tmp_path: Path) -> Path:
    """A bundle whose tiles are small."""
    import oracle

    from pathopan.network.bundle import save_bundle

    description = oracle.tiny_bundle(step=512, halo=64)
    save_bundle(tmp_path / "bundle", description, oracle.tiny_net(description))
    return tmp_path / "bundle"


@pytest.fixture
def small_slides(tmp_path: Path, synthetic_slide):
    """Make slides of given names."""
    from pathopan.manifest import SlideEntry

    def make(*names):
        (tmp_path / "slides").mkdir(exist_ok=True)
        for name in names:
            shutil.copy(synthetic_slide.path, tmp_path / "slides" / f"{name}.tif")
        return [SlideEntry(name, tmp_path / "slides" / f"{name}.tif") for name in names]

    return make
