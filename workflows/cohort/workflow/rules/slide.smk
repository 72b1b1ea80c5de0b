# One pathopan command a rule. Declared outputs are small files that say how a job ended: Snakemake deletes those before
# it repeats a job. What was computed lies in OUT/slides, which it does not know, and is kept.


rule tile:
    input:
        slide_file,
    output:
        f"{STATE}/tile.json",
    log:
        f"{OUT}/logs/tile/{{slide}}.log",
    params:
        out=run_folder,
        mpp=stated_mpp,
        bundle=config["bundle"],
        settings=settings("tiler"),
    shell:
        "pathopan tile {params.out:q} --slide {wildcards.slide:q} > {log:q} 2>&1"


rule predict:
    input:
        f"{STATE}/tile.json",
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
        device=config["device"],
        settings=settings("inference", "stitcher"),
    shell:
        "pathopan predict {params.out:q} --slide {wildcards.slide:q}"
        " --shard {wildcards.shard}/{wildcards.shards} --workers {threads} > {log:q} 2>&1"


rule stitch:
    input:
        parts,
    output:
        f"{STATE}/stitch.json",
    log:
        f"{OUT}/logs/stitch/{{slide}}.log",
    params:
        out=run_folder,
        settings=settings("stitcher", "export"),
    shell:
        "pathopan stitch {params.out:q} --slide {wildcards.slide:q} > {log:q} 2>&1"


rule score:
    input:
        f"{STATE}/stitch.json",
    output:
        f"{STATE}/score.json",
    log:
        f"{OUT}/logs/score/{{slide}}.log",
    params:
        out=run_folder,
        settings=settings("objects", "scores"),
    shell:
        "pathopan score {params.out:q} --slide {wildcards.slide:q} > {log:q} 2>&1"


rule export:
    input:
        f"{STATE}/score.json",
    output:
        f"{STATE}/export.json",
    log:
        f"{OUT}/logs/export/{{slide}}.log",
    params:
        out=run_folder,
        settings=settings("export"),
    shell:
        "pathopan export {params.out:q} --slide {wildcards.slide:q} > {log:q} 2>&1"
