# One pathopan command a rule. Declared outputs are small files that say how a job ended: Snakemake deletes those before
# it repeats a job. What was computed lies in OUT/slides, which it does not know, and is kept.


rule tile:
    input:
        slide_file,
        follows("bundle", "tiler"),
    output:
        f"{STATE}/tile.json",
    log:
        f"{OUT}/logs/tile/{{slide}}.log",
    params:
        out=run_folder,
        mpp=stated_mpp,
    shell:
        "pathopan tile {params.out:q} --slide {wildcards.slide:q} > {log:q} 2>&1"


rule predict:
    input:
        f"{STATE}/tile.json",
        follows("device", "inference", "stitcher"),
    output:
        f"{STATE}/predict.{{shard}}-of-{{shards}}.json",
    log:
        f"{OUT}/logs/predict/{{slide}}.{{shard}}-of-{{shards}}.log",
    threads: config["workers"]
    resources:
        gpu=1,
        gpu_manufacturer="nvidia",
    params:
        out=run_folder,
    shell:
        "pathopan predict {params.out:q} --slide {wildcards.slide:q}"
        " --shard {wildcards.shard}/{wildcards.shards} --workers {threads} > {log:q} 2>&1"


rule stitch:
    input:
        parts,
        follows("stitcher", "export"),
    output:
        f"{STATE}/stitch.json",
    log:
        f"{OUT}/logs/stitch/{{slide}}.log",
    params:
        out=run_folder,
    shell:
        "pathopan stitch {params.out:q} --slide {wildcards.slide:q} > {log:q} 2>&1"


rule score:
    input:
        f"{STATE}/stitch.json",
        follows("objects", "scores"),
    output:
        f"{STATE}/score.json",
    log:
        f"{OUT}/logs/score/{{slide}}.log",
    params:
        out=run_folder,
    shell:
        "pathopan score {params.out:q} --slide {wildcards.slide:q} > {log:q} 2>&1"


rule export:
    input:
        f"{STATE}/score.json",
        follows("export"),
    output:
        f"{STATE}/export.json",
    log:
        f"{OUT}/logs/export/{{slide}}.log",
    params:
        out=run_folder,
    shell:
        "pathopan export {params.out:q} --slide {wildcards.slide:q} > {log:q} 2>&1"


# Settings are files and no params: the provenance of a job that outlives Snakemake (killed, its node lost) is never
# written, and a change would pass it by. These are written where Snakemake itself runs.
localrules:
    settings,


rule settings:
    output:
        f"{OUT}/state/.settings/{{name}}.json",
    log:
        f"{OUT}/logs/settings/{{name}}.log",
    params:
        setting=setting,
    shell:
        "printf '%s' {params.setting:q} > {output:q} 2> {log:q}"
