"""Groovy scripts that import a whole run into a QuPath project: one for the project that is open, one that makes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pathopan.classes import Taxonomy
from pathopan.export.qupath import qupath_color
from pathopan.files import atomic_path

SCRIPT_NAME = "import_into_qupath.groovy"
"""In a run's folder: imports into the open project, whose images are there already."""

PROJECT_SCRIPT_NAME = "make_qupath_project.groovy"
"""From ``pathopan export --format qupath-project``: adds the slides, and makes a project where none is open."""


@dataclass(frozen=True)
class ProjectSlide:
    """One slide, as a project shows it."""

    file: str  # name or path of the slide's file; with a path the slide can be added
    scores: Mapping[str, str] = field(default_factory=dict)  # shown as the image's metadata


def write_import_script(run_folder: Path, *, taxonomy: Taxonomy, slide_files: Mapping[str, str] | None = None) -> Path:
    """Write a Groovy script that imports every slide's GeoJSON of a run into the open QuPath project.

    In QuPath: open the project, *Automate > Script editor*, open the script, *Run*. Images are matched by name; objects
    imported before are replaced, because ids are stable; class colors are set.

    Parameters
    ----------
    run_folder : Path
        The run's folder; the script is written into it.
    taxonomy : Taxonomy
        Classes whose colors are set.
    slide_files : mapping of str to str, optional
        File name of each slide id, for slides whose id is not the file's name without its ending.

    Returns
    -------
    Path
        The script.
    """
    slides = {slide: ProjectSlide(Path(name).name) for slide, name in (slide_files or {}).items()}
    return _write(run_folder / SCRIPT_NAME, run_folder, taxonomy, slides, adds="false")


def write_project_script(
    target: Path, run_folder: Path, *, taxonomy: Taxonomy, slides: Mapping[str, ProjectSlide]
) -> Path:
    """Write a Groovy script that makes a QuPath project of a run: slides, regions, nuclei, classes and scores.

    In QuPath: *Automate > Script editor*, open the script, *Run*; or without a window ``QuPath script SCRIPT``. Where a
    project is open the slides are added to it, else one is made beside the script, in ``qupath_project``.

    Parameters
    ----------
    target : Path
        The script.
    run_folder : Path
        The run's folder.
    taxonomy : Taxonomy
        Classes of the project.
    slides : mapping of str to ProjectSlide
        Paths and scores of the slides by their ids.

    Returns
    -------
    Path
        The script.
    """
    return _write(target, run_folder, taxonomy, slides, adds="true")


def _write(
    target: Path, run_folder: Path, taxonomy: Taxonomy, slides: Mapping[str, ProjectSlide], *, adds: str
) -> Path:
    colors = {kind.qupath: qupath_color(kind) for kind in taxonomy.nuclei}
    colors |= {kind.qupath: qupath_color(kind) for kind in taxonomy.regions}
    text = _SCRIPT.format(
        folder=_groovy(run_folder.resolve().as_posix()),
        project=_groovy((target.resolve().parent / "qupath_project").as_posix()),
        adds=adds,
        colors=_groovy_map({name: f"[{r}, {g}, {b}]" for name, (r, g, b) in colors.items()}),
        files=_groovy_map({name: _groovy(slide.file) for name, slide in slides.items()}),
        scores=_groovy_map(
            {
                name: _groovy_map({title: _groovy(value) for title, value in slide.scores.items()})
                for name, slide in slides.items()
                if slide.scores
            }
        ),
    )
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return target


def _groovy(text: str) -> str:
    """Quote as a Groovy string in which nothing is interpolated."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r")
    return f"'{escaped}'"


def _groovy_map(entries: Mapping[str, str]) -> str:
    return "[" + (", ".join(f"({_groovy(key)}): {value}" for key, value in entries.items()) or ":") + "]"


_SCRIPT = """\
import java.awt.image.BufferedImage
import qupath.lib.images.ImageData
import qupath.lib.images.servers.ImageServerProvider
import qupath.lib.io.PathIO
import qupath.lib.projects.ProjectIO
import qupath.lib.projects.Projects

// Imports the regions and nuclei of a pathopan run into a QuPath project (QuPath 0.4 and later).
// If the results folder was moved, change the next line; if the slides were, their paths below.
def folder = new File({folder})
def projectFolder = new File({project})
def addsSlides = {adds}
def files = {files}
def colors = {colors}
def scores = {scores}

def project = getProject()
if (project == null && addsSlides) {{
    def file = new File(projectFolder, 'project.qpproj')
    projectFolder.mkdirs()
    project = file.isFile() ? ProjectIO.loadProject(file, BufferedImage) :
        Projects.createProject(projectFolder, BufferedImage)
    println 'Project: ' + file
}}
if (project == null) {{
    println 'Open a project first: File > Project > Open project'
    return
}}

// Classes: ours with their colors, in front of those that the project has
def classes = colors.collect {{ name, rgb ->
    def kind = getPathClass(name)
    kind.setColor(makeRGB(rgb[0], rgb[1], rgb[2]))
    kind
}}
project.setPathClasses((classes + project.getPathClasses()).unique())

// An image's slide: 'S1.2.svs' is slide 'S1.2', not 'S1'
def slides = (new File(folder, 'slides').listFiles() ?: []).findAll {{ it.isDirectory() }}.sort {{ it.name }}
def fileOf = {{ slide -> files[slide.name] == null ? null : new File(files[slide.name]).name }}
def slideOf = {{ image ->
    slides.findAll {{
        def file = fileOf(it)
        image == it.name || image == file || (file != null && image.startsWith(file + ' - ')) ||
            image.startsWith(it.name + '.')
    }}.max {{ it.name.size() }}
}}
if (addsSlides) {{
    def known = project.getImageList().collect {{ slideOf(it.getImageName()) }} as Set
    for (slide in slides) {{
        def file = files[slide.name] == null ? null : new File(files[slide.name])
        if (known.contains(slide)) continue
        if (file == null || !file.isFile()) {{
            println 'Not added, its file is not there: ' + slide.name + ' ' + file
            continue
        }}
        def support = ImageServerProvider.getPreferredUriImageSupport(BufferedImage, file.toURI().toString())
        if (support == null || support.builders.isEmpty()) {{
            println 'Not added, QuPath cannot read it: ' + file
            continue
        }}
        def entry = project.addImage(support.builders[0])
        entry.setImageName(file.name)
        def data = entry.readImageData()
        data.setImageType(ImageData.ImageType.BRIGHTFIELD_H_E)
        entry.saveImageData(data)
    }}
}}

def imported = 0
for (entry in project.getImageList()) {{
    def image = entry.getImageName()
    def slide = slideOf(image)
    if (slide == null) {{
        println 'No results for ' + image
        continue
    }}
    def objects = []
    for (name in [slide.name + '.regions.geojson', slide.name + '.nuclei.geojson.gz']) {{
        def file = new File(slide, name)
        if (file.isFile()) objects.addAll(PathIO.readObjects(file.toPath()))
    }}
    def data = entry.readImageData()
    def hierarchy = data.getHierarchy()
    def ids = objects.collect {{ it.getID() }} as Set
    hierarchy.removeObjects(hierarchy.getAllObjects(false).findAll {{ ids.contains(it.getID()) }}, true)
    hierarchy.addObjects(objects)
    hierarchy.resolveHierarchy()
    entry.saveImageData(data)
    (scores[slide.name] ?: [:]).each {{ name, value -> entry.putMetadataValue(name, value) }}
    imported++
    println image + ': ' + objects.size() + ' objects'
}}
project.syncChanges()
println 'Imported ' + imported + ' of ' + slides.size() + ' slides. Reopen the image to see its objects.'
"""
