"""Every notebook runs from its first cell to its last, in a folder of its own; without its data it says what to get."""

import json
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
WITH_DATA = [path for path in NOTEBOOKS if "shared/data" in path.read_text(encoding="utf-8")]


def execute(notebook, folder, prelude="pass"):
    """Run a notebook in a fresh kernel, after some code of the test's; give its cells."""
    notebook.cells.insert(0, nbformat.v4.new_code_cell(prelude))
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=900, kernel_name="python3", resources=resources).execute()
    return notebook.cells[1:]


@pytest.fixture(autouse=True)
def own_kernel(monkeypatch, tmp_path):
    """Point Jupyter at this interpreter and at folders of the test's."""
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "x", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "matplotlib"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_short_clean_and_imports_public_names_only(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(notebook.cells) < 15
    assert all(not cell.outputs and cell.execution_count is None for cell in code), "clear the outputs"
    imports = [line for cell in code for line in cell.source.splitlines() if line.startswith(("import ", "from "))]
    assert not [line for line in imports if "pathopan." in line]


@pytest.mark.slow
def test_the_first_notebook_works_on_made_up_results(results_folder, tmp_path):
    notebook = nbformat.read(NOTEBOOKS[0], as_version=4)
    prelude = (
        "import pathopan, pathopan.result\n"
        f"pathopan.demo = lambda out: pathopan.result.open_result({str(results_folder)!r})"
    )
    cells = execute(notebook, tmp_path, prelude)
    figures = [o for cell in cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert len(figures) == 4
    assert "rows in the table" in cells[-2].outputs[0].text


@pytest.fixture
def beside_data(tmp_path, request):
    """A folder from which `../../shared/data` is the shared data, as it is from the repository's notebooks."""
    folder = tmp_path / "repository" / "notebooks"
    folder.mkdir(parents=True)
    if request.node.callspec.params["path"] in WITH_DATA:
        (tmp_path / "shared").symlink_to(request.getfixturevalue("shared_data").parent)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, beside_data):
    cells = execute(nbformat.read(path, as_version=4), beside_data)
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error"]
    assert len([output for output in outputs if "image/png" in output.get("data", {})]) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("path", WITH_DATA, ids=lambda path: path.stem)
def test_a_notebook_without_its_data_stops_in_its_first_cell_and_says_where_to_get_it(path, tmp_path):
    with pytest.raises(CellExecutionError) as stopped:
        execute(nbformat.read(path, as_version=4), tmp_path)
    assert stopped.value.ename == "SystemExit"
    assert "github.com" in stopped.value.evalue
