"""Options that several commands of the command line share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_BUNDLE = "breast-he-11"
"""The bundle that ships with the package and runs unless another is named."""

Paths = Annotated[list[Path], typer.Argument(help="Slides, folders of slides, or CSV manifests (slide_id,path,mpp).")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the results; a second run goes on with it.")]
BundleName = Annotated[str, typer.Option("--bundle", "-b", help="Name or folder of the network's bundle.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
RuntimeName = Annotated[
    str | None, typer.Option("--runtime", help="auto, torch or openvino: who executes the network on a CPU.")
]
Mpp = Annotated[
    float | None,
    typer.Option(
        "--slide-mpp",
        help="Micrometres per level-0 pixel, for slides that do not say; to overrule a file, use a manifest.",
    ),
]
ConfigFile = Annotated[Path | None, typer.Option("--config", "-c", help="YAML with settings.")]
Set = Annotated[list[str], typer.Option("--set", help="One setting, such as scores.field_um=1000; repeatable.")]
Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="Look into sub-folders too.")]
Workers = Annotated[int, typer.Option("--workers", "-w", min=0, help="Threads that read and that decode; 0: in line.")]
Tissue = Annotated[Path | None, typer.Option(help="GeoJSON or mask image that says where the tissue is.")]
Gpus = Annotated[str, typer.Option(help="Numbers of GPUs, such as 0,1, that share each slide's tiles.")]
Anonymous = Annotated[bool, typer.Option("--anonymous", help="Write no path and no file name of a slide.")]
