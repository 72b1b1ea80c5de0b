rule cohort:
    input:
        expand(f"{STATE}/export.json", slide=slides.index),
    output:
        scores=report(
            f"{OUT}/scores.csv", caption="../report/scores.rst", category="Cohort"
        ),
        failures=report(
            f"{OUT}/failures.csv", caption="../report/failures.rst", category="Cohort"
        ),
        page=report(
            f"{OUT}/report.html", caption="../report/page.rst", category="Cohort"
        ),
    log:
        f"{OUT}/logs/cohort.log",
    params:
        out=run_folder,
    shell:
        "pathopan tables {params.out:q} > {log:q} 2>&1"


# The tables of what is there, while jobs run or after some have failed: `snakemake ... cohort_partial`. It writes the
# same files as the rule above, which writes them anew once every slide has been dealt with.
rule cohort_partial:
    log:
        f"{OUT}/logs/cohort_partial.log",
    params:
        out=run_folder,
    shell:
        "pathopan tables {params.out:q} > {log:q} 2>&1"
