"""Stage 87: ten language-model services of ServeGen. Without capacities, the stage is off."""

LLM_SETTINGS = ours("data/recorded-llm/tuning.csv")


rule fetch_servegen:
    "Check the SHA-256 of ServeGen's two files, which are copied into data/raw/ by hand."
    input:
        sources=local(ours("data/sources.yaml")),
    output:
        checksums=local(f"{CONFIG.raw}/servegen.sha256"),
    log:
        f"{LOGS}/fetch_servegen.log",
    conda:
        ENVIRONMENT
    message:
        "fetch_servegen: the clients of ServeGen"
    shell:
        f"{COMMAND} fetch servegen {{output.checksums:q}} > {{log:q}} 2>&1"


rule llm:
    "Simulate ten language-model services under Faro and the autoscalers that people use."
    input:
        checksums=rules.fetch_servegen.output.checksums,
        tuning=committed(LLM_SETTINGS) if Path(LLM_SETTINGS).exists() else [],
    output:
        tables=tables_in("llm", "runs.csv", "services.csv"),
        notebook=f"{NOTEBOOKS}/87_language_models.ipynb",
    log:
        f"{LOGS}/87_language_models.log",
    benchmark:
        f"{LOGS}/87_language_models.bench"
    conda:
        ENVIRONMENT
    params:
        source="notebooks/87_language_models.ipynb",
        code=code_of("87_language_models"),
        notebook=parameters(
            results=RESULTS,
            raw=CONFIG.raw,
            tuning=LLM_SETTINGS,
            **SETTINGS["llm"],
        ),
    message:
        "llm: 87_language_models"
    shell:
        RUN_NOTEBOOK


DRAWINGS["llm"] = {
    "tables": rules.llm.output.tables,
    "figures": ["language_models"],
}
