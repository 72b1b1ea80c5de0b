"""The viewer as a program: where it listens, what it says, and how it ends."""

import http.client
import re
import socket
from urllib.parse import urlsplit

import pytest
from viewing import start, stop

from pathopan.errors import ConfigError, MissingExtra, ResultError
from pathopan.viewer import serve
from pathopan.viewer.serve import open_viewer


@pytest.fixture(scope="module")
def running(results_folder):
    process, url = start(results_folder)
    yield url
    assert stop(process) == 0


def ask(url, path):
    """Ask for a path exactly as it is written."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    connection.request("GET", path)
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def test_the_address_holds_a_long_token_and_works(running):
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{32}/", running)
    status, page = ask(running, urlsplit(running).path)
    assert (status, b"<title>pathopan</title>" in page) == (200, True)
    assert ask(running, "/")[0] == 403


@pytest.mark.parametrize(
    "path",
    ["static/../serve.py", "static/%2e%2e/serve.py", "static/..%2fserve.py", "static/%2e%2e%2f%2e%2e%2fcli.py",
     "static//etc/passwd", "static/..\\serve.py", "slides/..%2f..%2frun.json", "slides/../../run.json",
     "slides/0/../../run.json", "../run.json", "%2e%2e/run.json", "static/%00", "slides/0/picture/0/..%2f.jpeg"],
)  # fmt: skip
def test_no_path_leads_to_another_file(running, path):
    status, text = ask(running, urlsplit(running).path + path)
    assert status == 404
    assert len(text) < 200


def test_dots_do_not_get_around_the_token(running):
    token = urlsplit(running).path.strip("/")
    assert ask(running, f"/x/../{token}/slides")[0] == 403


def test_other_addresses_of_this_machine_do_not_answer(running):
    with pytest.raises(OSError, match=r"refused|timed out"):
        socket.create_connection(("127.0.0.2", urlsplit(running).port), timeout=2)


def test_each_start_has_another_token(results_folder):
    tokens = set()
    for _ in range(2):
        viewer = open_viewer(results_folder)
        viewer.listening.close()
        tokens.add(urlsplit(viewer.url).path)
    assert len(tokens) == 2


def test_a_port_in_use_is_told(results_folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} cannot be used .* choose another with --port"):
            open_viewer(results_folder, port=port)


def test_a_folder_without_a_run_is_told(tmp_path):
    with pytest.raises(ResultError, match=r"run\.json is missing"):
        open_viewer(tmp_path)


def test_a_missing_library_is_told_with_the_command(monkeypatch, results_folder):
    monkeypatch.setattr(serve.importlib.util, "find_spec", lambda name: None if name == "uvicorn" else object())
    with pytest.raises(MissingExtra, match=r"needs uvicorn: pip install 'pathopan\[view\]'"):
        open_viewer(results_folder)


class Shown:
    def __init__(self, name):
        self.name, self.urls = name, []

    def open(self, url):
        self.urls.append(url)
        return True


@pytest.mark.parametrize(("name", "opened"), [("firefox", True), ("w3m", False)])
def test_only_a_browser_with_windows_is_opened(monkeypatch, results_folder, name, opened):
    browser = Shown(name)
    monkeypatch.setattr(serve.webbrowser, "get", lambda: browser)
    viewer = open_viewer(results_folder)
    with viewer.listening:
        assert viewer.open_browser() is opened
    assert browser.urls == ([viewer.url] if opened else [])


def test_a_machine_without_a_browser_is_fine(monkeypatch, results_folder):
    def none():
        raise serve.webbrowser.Error("no browser")

    monkeypatch.setattr(serve.webbrowser, "get", none)
    viewer = open_viewer(results_folder)
    with viewer.listening:
        assert not viewer.open_browser()
