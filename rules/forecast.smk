"""Stage 30: fit the Bayesian forecaster and compare it with other forecasters. Needs two training days."""


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
    conda:
        ENVIRONMENT
    params:
        source="notebooks/30_forecasting.ipynb",
        code=code_of("30_forecasting"),
        notebook=parameters(results=RESULTS, **CONFIG.forecast.model_dump()),
    message:
        "forecast: 30_forecasting"
    shell:
        RUN_NOTEBOOK


DRAWINGS["forecast"] = {
    "tables": rules.forecast.output.tables,
    "figures": ["forecast", "coverage", "forecast_scores", "predictive_check"],
    "options": {"published": COMPARED_WITH},
}
