"""Write the cohort workflow's config schema from pathopan's own settings: `python workflows/write_schemas.py`."""

from pathlib import Path

import yaml

from pathopan.config_schema import settings_schema
from pathopan.options import DEFAULT_BUNDLE

SCHEMA = Path(__file__).parent / "cohort" / "workflow" / "schemas" / "config.schema.yaml"


def config_schema() -> dict:
    """Describe the workflow's config: where slides and results are, and every setting of pathopan."""
    text = {"type": "string", "minLength": 1}
    defaults = {
        "outdir": ("results", "Folder for the results."),
        "bundle": (DEFAULT_BUNDLE, "Name or folder of the network's bundle."),
        "device": ("auto", "auto, cpu or cuda: the same for all jobs, as results may differ in rounding."),
        "container": ("pathopan.sif", "Image that jobs run in, with --sdm apptainer."),
    }
    properties = {"slides": {**text, "description": "Manifest: slide_id,path[,mpp[,shards]]."}}
    for name, (default, description) in defaults.items():
        properties[name] = {**text, "default": default, "description": description}
    properties["workers"] = {"type": "integer", "minimum": 1, "default": 2, "description": "Threads of a predict job."}
    properties["settings"] = settings_schema() | {"default": {}}
    for room in properties["settings"]["properties"].values():
        for setting in room["properties"].values():
            del setting["default"]  # a validator would fill them in, and every default would pass for a choice
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "description": "Made by workflows/write_schemas.py from pathopan.config; do not edit.",
        "type": "object",
        "additionalProperties": False,
        "required": ["slides"],
        "properties": properties,
    }


if __name__ == "__main__":
    SCHEMA.write_text(yaml.safe_dump(config_schema(), sort_keys=False, width=120), encoding="utf-8")
