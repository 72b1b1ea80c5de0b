import json
import subprocess
from pathlib import Path

import pandas as pd
from snakemake.exceptions import WorkflowError

validate(config, "../schemas/config.schema.yaml")
OUT = config["outdir"]
STATE = f"{OUT}/state/{{slide}}"
FOLLOWED = {
    **config["settings"],
    "bundle": config["bundle"],
    "device": config["device"],
}
slides = pd.read_csv(config["slides"], dtype={"slide_id": str, "path": str})
validate(slides, "../schemas/slides.schema.yaml")
if slides["slide_id"].str.lower().duplicated().any():
    raise WorkflowError(f"{config['slides']}: a slide_id is there twice")
slides = slides.set_index("slide_id", drop=False)


wildcard_constraints:
    slide=r"[A-Za-z0-9][A-Za-z0-9._-]*",
    shard=r"\d+",
    shards=r"\d+",


def slide_file(wildcards):
    """A slide's file, where there is one: a missing slide is refused by its first job and stops no other."""
    path = Path(config["slides"]).parent / slides.at[wildcards.slide, "path"]
    return [str(path)] if path.exists() else []


def stated_mpp(wildcards):
    """What the manifest says of a slide's mpp."""
    row = slides.loc[wildcards.slide]
    return str(row["mpp"]) if "mpp" in row and pd.notna(row["mpp"]) else ""


def parts(wildcards):
    """The states of all jobs that share a slide's tiles."""
    row = slides.loc[wildcards.slide]
    count = int(row["shards"]) if pd.notna(row["shards"]) else 1
    folder = f"{OUT}/state/{wildcards.slide}"
    return [f"{folder}/predict.{i}-of-{count}.json" for i in range(1, count + 1)]


def follows(*names):
    """Files that say what a stage follows: if one changes, the stage is done again, and so is what rests on it."""
    return [f"{OUT}/state/.settings/{name}.json" for name in names]


def setting(wildcards):
    """What such a file says."""
    return json.dumps(FOLLOWED.get(wildcards.name, {}), sort_keys=True)


def overrides():
    """All settings, as the command line takes them."""
    return [
        f"--set={room}.{name}={value}"
        for room, values in config["settings"].items()
        for name, value in values.items()
    ]


def run_folder(wildcards):
    """Where the run lies, of which every job does its part."""
    return OUT


def plan_run():
    """Write down slides and settings for all jobs, before the first of them starts."""
    names = ("bundle", "device", "workers")
    words = [word for name in names for word in (f"--{name}", str(config[name]))]
    command = ["pathopan", "plan", config["slides"], "--out", OUT, *words, *overrides()]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise WorkflowError(done.stderr or done.stdout)
