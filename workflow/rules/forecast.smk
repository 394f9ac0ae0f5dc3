"""Stage 30: fit the Bayesian forecaster and compare it with others. Needs two training days."""


rule forecast:
    "Fit the Bayesian forecaster on the training days; score all forecasters on the evaluation day."
    input:
        requests=rules.traces.output.requests,
        jobs=rules.traces.output.jobs,
        fitted=committed(CONFIG.forecast.posterior) if CONFIG.forecast.posterior else [],
    output:
        samples=f"{RESULTS}/forecast/samples.npz",
        posterior=f"{RESULTS}/forecast/posterior.npz",
        tables=tables_in(
            "forecast",
            "scores.csv",
            "coverage.csv",
            "gains.csv",
            "days.csv",
            "members.csv",
            "bands.parquet",
            "steps.parquet",
        ),
        notebook=f"{NOTEBOOKS}/30_forecasting.ipynb",
    log:
        f"{LOGS}/30_forecasting.log",
    benchmark:
        f"{LOGS}/30_forecasting.bench"
    priority: 4  # the longest stage, and every stage that simulates waits for it
    conda:
        ENVIRONMENT
    params:
        source="notebooks/30_forecasting.ipynb",
        code=code_of("30_forecasting"),
        notebook=parameters(results=RESULTS, **SETTINGS["forecast"]),
    message:
        "forecast: 30_forecasting"
    shell:
        RUN_NOTEBOOK


rule other_forecasts:
    "Forecast with AutoETS, AutoARIMA and a zero-shot model (`make forecasters` installs them)."
    input:
        requests=rules.traces.output.requests,
        script=committed(ours("envs/forecasters/predict.py")),
    output:
        samples=f"{RESULTS}/forecast/others.npz",
    log:
        f"{LOGS}/other_forecasts.log",
    benchmark:
        f"{LOGS}/other_forecasts.bench"
    conda:
        ENVIRONMENT
    params:
        python=f"{ROOT}/.venv-forecasters/bin/python",
        zero_shot=Path(ROOT, ".venv-forecasters", ".ready-zero-shot").exists(),
    message:
        "other_forecasts: statsforecast and Fracast"
    shell:
        "{params.python:q} {input.script:q} {input.requests:q} {output.samples:q} 2> {log:q}"


rule compared_forecasters:
    "Score our forecasters and those of other packages from the same minutes; not in the report."
    input:
        requests=rules.traces.output.requests,
        jobs=rules.traces.output.jobs,
        posterior=rules.forecast.output.posterior,
        others=rules.other_forecasts.output.samples,
    output:
        table=f"{RESULTS}/forecast/compared.csv",
        notebook=f"{NOTEBOOKS}/35_forecasters.ipynb",
    log:
        f"{LOGS}/35_forecasters.log",
    benchmark:
        f"{LOGS}/35_forecasters.bench"
    conda:
        ENVIRONMENT
    params:
        source="notebooks/35_forecasters.ipynb",
        code=code_of("35_forecasters"),
        notebook=lambda wildcards, input: parameters(results=RESULTS, others=input.others),
    message:
        "compared_forecasters: 35_forecasters"
    shell:
        RUN_NOTEBOOK


DRAWINGS["forecast"] = {
    "tables": rules.forecast.output.tables,
    "figures": ["forecast", "coverage", "forecast_scores", "predictive_check"],
    "options": {"published": COMPARED_WITH},
}
