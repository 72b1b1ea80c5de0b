"""The workflows as files: they lint, their schema is that of the settings, and bad input is refused at once."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import pathopan

REPOSITORY = Path(pathopan.__file__).parents[1]
COHORT = REPOSITORY / "workflows" / "cohort"
CONTAINERS = REPOSITORY / "workflows" / "containers"
BIN = Path(sys.executable).parent
pytestmark = pytest.mark.skipif(not COHORT.is_dir(), reason="the workflows are not part of an installed package")


def call(*words, cwd=COHORT, **more):
    return subprocess.run([*map(str, words)], cwd=cwd, capture_output=True, text=True, check=False, timeout=240, **more)


@pytest.fixture
def cohort(tmp_path):
    """A copy of the workflow, as a user makes one."""
    return Path(shutil.copytree(COHORT, tmp_path / "cohort", ignore=shutil.ignore_patterns("results", ".snakemake")))


def dry_run(cohort, *words):
    done = call(BIN / "snakemake", "--dry-run", *words, cwd=cohort)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("workflow", sorted(path.parent for path in COHORT.parent.glob("*/workflow/Snakefile")))
def test_snakemake_and_snakefmt_find_nothing(workflow):
    found = call(BIN / "snakemake", "--lint", cwd=workflow.parent)
    assert found.returncode == 0, found.stdout + found.stderr
    found = call(BIN / "snakefmt", "--check", "workflow", cwd=workflow.parent)
    assert found.returncode == 0, found.stderr


def test_the_schema_is_that_of_the_settings():
    found = call(sys.executable, "-c", "import write_schemas, json; print(json.dumps(write_schemas.config_schema()))",
                 cwd=COHORT.parent)  # fmt: skip
    assert found.returncode == 0, found.stderr
    stored = yaml.safe_load((COHORT / "workflow" / "schemas" / "config.schema.yaml").read_text())
    assert stored == yaml.safe_load(found.stdout), "run python workflows/write_schemas.py"


def test_one_rule_is_one_command_and_none_repeats_itself():
    for path in (COHORT / "workflow" / "rules").glob("*.smk"):
        text = path.read_text()
        assert "retries:" not in text  # they would repeat a job with the memory that was too little
        commands = re.findall(r"^rule (\w+):.*?^    shell:\n\s+\"(\w+) (\w+)", text, flags=re.MULTILINE | re.DOTALL)
        for rule, program, command in commands:
            expected = {"cohort": "tables", "cohort_partial": "tables"}.get(rule, rule)
            assert (program, command) == ("pathopan", expected)


@pytest.mark.slow
def test_a_dry_run_shows_one_job_a_stage_and_shard(cohort):
    code, told = dry_run(cohort)
    assert code == 0, told
    counts = dict(re.findall(r"^(\w+) +(\d+)$", told, flags=re.MULTILINE))
    expected = {"tile": 3, "predict": 6, "stitch": 3, "score": 3, "export": 3, "cohort": 1, "settings": 8, "total": 28}
    assert {name: int(counts[name]) for name in expected} == expected


@pytest.mark.slow
def test_training_is_a_job_a_fold_then_a_report_then_a_network(tmp_path):
    train = Path(shutil.copytree(COHORT.parent / "train", tmp_path / "train"))
    code, told = dry_run(train)
    assert code == 0, told
    counts = dict(re.findall(r"^(\w+) +(\d+)$", told, flags=re.MULTILINE))
    assert {name: int(counts[name]) for name in ("fold", "crossvalidate", "train")} == {
        "fold": 5, "crossvalidate": 1, "train": 1,
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("manifest", "text"),
    [
        ("slide_id,path\na,a.svs\nA,b.svs\n", "a slide_id is there twice"),
        ("slide_id,path\n../a,a.svs\n", "does not match"),
        ("slide_id,path,shards\na,a.svs,0\n", "less than the minimum"),
        ("slide_id,file\na,a.svs\n", "'path' is a required property"),
    ],
)
def test_a_bad_manifest_is_refused_before_anything_runs(cohort, manifest, text):
    (cohort / "config" / "slides.csv").write_text(manifest)
    code, told = dry_run(cohort)
    assert (code, text in told) == (1, True), told


@pytest.mark.slow
def test_an_unknown_setting_is_refused_before_anything_runs(cohort):
    config = yaml.safe_load((cohort / "config" / "config.yaml").read_text())
    (cohort / "config" / "config.yaml").write_text(yaml.safe_dump(config | {"settings": {"scores": {"field": 500}}}))
    code, told = dry_run(cohort)
    assert (code, "'field' was unexpected" in told) == (1, True), told


def test_the_dockerfile_keeps_to_the_rules():
    """What hadolint would say, of the instructions that are used here."""
    text = (CONTAINERS / "Dockerfile").read_text()
    lines = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).split("\n")
    steps = [line.split(maxsplit=1) for line in lines if line.strip()]
    assert {step[0] for step in steps} <= {"FROM", "LABEL", "ENV", "COPY", "RUN", "USER", "WORKDIR", "CMD"}
    values = {name: [step[1] for step in steps if step[0] == name] for name, _ in steps}
    assert re.fullmatch(r"[\w./-]+:(?!latest)[\w.-]+", values["FROM"][0]), "DL3006, DL3007: pin the base image"
    assert values["USER"][-1] not in ("root", "0"), "DL3002: do not end as root"
    assert all(place.startswith("/") for place in values["WORKDIR"]), "DL3000: absolute"
    assert len(values["CMD"]) == 1, "DL4003: one CMD"
    assert values["CMD"][0].startswith("["), "DL3025: JSON form"
    assert all("--no-cache-dir" in run and "--no-index" in run for run in values["RUN"] if "pip" in run), "DL3042"
    assert not [run for run in values["RUN"] if re.search(r"\b(cd|sudo|apt-get|curl|wget)\b", run)]
    for copied in values["COPY"]:
        assert all((REPOSITORY / source).exists() for source in copied.split()[:-1]), copied


def test_the_apptainer_recipe_keeps_to_the_rules():
    header, *sections = re.split(r"^%", (CONTAINERS / "pathopan.def").read_text(), flags=re.MULTILINE)
    assert re.search(r"^Bootstrap: docker$", header, flags=re.MULTILINE)
    assert re.search(r"^From: [\w./-]+:(?!latest)[\w.-]+$", header, flags=re.MULTILINE)
    parts = {name: body for name, _, body in (section.partition("\n") for section in sections)}
    assert set(parts) == {"labels", "files", "post", "environment", "test", "runscript", "help"}
    for script in ("post", "environment", "test", "runscript"):
        assert call("sh", "-n", cwd=REPOSITORY, input=parts[script]).returncode == 0, script
    assert "--no-index" in parts["post"]
    sources = [line.split()[0] for line in parts["files"].splitlines() if line.strip()]
    assert all((REPOSITORY / source).exists() for source in sources if not source.endswith("wheels"))


def test_the_recipes_name_this_version():
    version = re.search(r'^version = "(.+)"', (REPOSITORY / "pyproject.toml").read_text(), flags=re.MULTILINE).group(1)
    for name in ("Dockerfile", "pathopan.def"):
        told = re.search(r"image\.version[= ]\"?([\w.]+)", (CONTAINERS / name).read_text()).group(1)
        assert told == version
