"""The scripts are text for QuPath; where Groovy is installed they are also run, on a pretended QuPath."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pathopan.classes import BREAST
from pathopan.export.qupath_project import ProjectSlide, write_import_script, write_project_script

PRETENDED = {
    "qupath/lib/gui/scripting/QPEx": """
        class QPEx {
            static project = System.getenv('OPEN') ? new qupath.lib.projects.Project(System.getenv('OPEN')) : null
            static classes = [:].withDefault { new qupath.lib.objects.classes.PathClass(name: it) }
            static getProject() { project }
            static getPathClass(String name) { classes[name] }
            static Integer makeRGB(int r, int g, int b) { r * 65536 + g * 256 + b }
        }""",
    "qupath/lib/objects/classes/PathClass": """
        class PathClass { String name; Integer rgb; void setColor(Integer value) { rgb = value } }""",
    "qupath/lib/projects/Project": """
        class Project {
            def entries = [], classes = []
            Project(String names) { entries = names.tokenize('|').collect { new Entry(name: it) } }
            def getImageList() { entries }
            def getPathClasses() { ['Tumor', 'Mine'].collect { qupath.lib.gui.scripting.QPEx.classes[it] } }
            boolean setPathClasses(Collection values) { classes = values }
            def addImage(builder) { entries << new Entry(name: 'x'); entries[-1] }
            void syncChanges() {
                println 'RESULT ' + groovy.json.JsonOutput.toJson([
                    classes: classes.collect { [it.name, it.rgb] },
                    images: entries.collect { [it.name, it.type, it.objects.collect { o -> o.id }, it.metadata] }])
            }
        }""",
    "qupath/lib/projects/Entry": """
        class Entry {
            String name; def type; def metadata = [:]
            def objects = [[id: 'mine'], [id: 'old']].collect { new Thing(it) }
            def getImageName() { name }
            void setImageName(String value) { name = value }
            def readImageData() { this }
            void saveImageData(data) {}
            void setImageType(value) { type = value }
            def getHierarchy() { this }
            def getAllObjects(boolean root) { objects }
            void removeObjects(Collection gone, boolean keep) { objects.removeAll(gone) }
            void addObjects(Collection more) { objects.addAll(more) }
            void resolveHierarchy() {}
            void putMetadataValue(String key, String value) { metadata[key] = value }
        }""",
    "qupath/lib/projects/Thing": "class Thing { String id; def getID() { id } }",
    "qupath/lib/projects/Projects": """
        class Projects {
            static createProject(File file, Class kind) { qupath.lib.gui.scripting.QPEx.project = new Project('') }
        }""",
    "qupath/lib/projects/ProjectIO": "class ProjectIO { static loadProject(File file, Class kind) { null } }",
    "qupath/lib/io/PathIO": """
        class PathIO {
            static readObjects(path) {
                def read = new groovy.json.JsonSlurper().parse(path.newInputStream())
                read.features.collect { new qupath.lib.projects.Thing(id: it.id) }
            }
        }""",
    "qupath/lib/images/ImageData": "class ImageData { enum ImageType { BRIGHTFIELD_H_E } }",
    "qupath/lib/images/servers/ImageServerProvider": """
        class ImageServerProvider {
            static getPreferredUriImageSupport(Class kind, String path) { [builders: [path]] }
        }""",
}


def run(script, folder, *, open_images=""):
    """Run a script as QuPath does, with its own names imported; gives what it printed, and the project at its end."""
    program = shutil.which("groovy")
    if program is None or subprocess.run([program, "--version"], capture_output=True, check=False).returncode:
        pytest.skip("needs Groovy: apt-get install groovy default-jre-headless")
    for name, text in PRETENDED.items():
        path = folder / "pretended" / f"{name}.groovy"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"package {Path(name).parent.as_posix().replace('/', '.')}\n{text}")
    started = folder / "started.groovy"
    started.write_text("import static qupath.lib.gui.scripting.QPEx.*\n" + script.read_text())
    environment = os.environ | {"OPEN": open_images}
    done = subprocess.run(
        [program, "-cp", folder / "pretended", started], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    found = [json.loads(line.removeprefix("RESULT ")) for line in lines if line.startswith("RESULT ")]
    return [line for line in lines if not line.startswith("RESULT ")], (found or [None])[-1]


@pytest.fixture
def results(tmp_path):
    """The folder of a run of two slides, with an object each, one of which an image has already."""
    for name, identity in (("S1", "old"), ("S1.2", "new")):
        folder = tmp_path / "it's $x" / "slides" / name
        folder.mkdir(parents=True)
        feature = {"type": "Feature", "id": identity}
        (folder / f"{name}.regions.geojson").write_text(json.dumps({"features": [feature]}))
    return tmp_path / "it's $x"


def test_the_import_script_quotes_what_it_is_given(tmp_path):
    folder = tmp_path / "it's $x"
    folder.mkdir()
    script = write_import_script(folder, taxonomy=BREAST, slide_files={"S'1": "a\\b/slide's.svs"})
    text = script.read_text()
    assert "it\\'s $x')" in text
    assert "def files = [('S\\'1'): 'slide\\'s.svs']" in text
    assert "('Tumor'): [200, 0, 0]" in text
    assert "{{" not in text


def test_the_import_script_replaces_objects_in_the_open_project(results, tmp_path):
    script = write_import_script(results, taxonomy=BREAST, slide_files={"S1": "S1.svs", "S1.2": "S1.2.svs"})
    lines, project = run(script, tmp_path, open_images="S1.svs|S1.2.svs|other.svs")
    assert lines[-1].startswith("Imported 2 of 2 slides")
    assert "No results for other.svs" in lines
    assert [image[2] for image in project["images"]] == [["mine", "old"], ["mine", "old", "new"], ["mine", "old"]]
    assert project["classes"][0] == ["Tumor", 200 * 65536]
    assert [name for name, _ in project["classes"]].count("Tumor") == 1
    assert project["classes"][-1][0] == "Mine"
    assert run(script, tmp_path)[0] == ["Open a project first: File > Project > Open project"]


def test_the_project_script_makes_a_project_and_adds_the_slides(results, tmp_path):
    files = {name: tmp_path / f"{name}.svs" for name in ("S1", "S1.2")}
    files["S1"].touch()
    slides = {name: ProjectSlide(str(path), {"sTIL %": "12.5"}) for name, path in files.items()}
    script = write_project_script(tmp_path / "make.groovy", results, taxonomy=BREAST, slides=slides)
    lines, project = run(script, tmp_path)
    assert lines[0] == f"Project: {tmp_path / 'qupath_project' / 'project.qpproj'}"
    assert lines[1] == f"Not added, its file is not there: S1.2 {files['S1.2']}"
    assert project["images"] == [["S1.svs", "BRIGHTFIELD_H_E", ["mine", "old"], {"sTIL %": "12.5"}]]
