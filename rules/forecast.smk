"""Stage 30: the Bayesian forecaster, fitted offline and scored against the others; it needs training days."""


rule forecast:
    "Fit the Bayesian forecaster on the training days and score every forecaster on the evaluation day."
    input:
        notebook=ancient(local("notebooks/30_forecasting.ipynb")),
        requests=rules.traces.output.requests,
        jobs=rules.traces.output.jobs,
        fitted=[local(CONFIG.forecast.posterior)] if CONFIG.forecast.posterior else [],
    output:
        samples=f"{RESULTS}/forecast/samples.npz",
        posterior=f"{RESULTS}/forecast/posterior.npz",
        tables=tables_in("forecast", "scores.csv", "coverage.csv", "gains.csv", "bands.parquet", "steps.parquet"),
        notebook=f"{NOTEBOOKS}/30_forecasting.ipynb",
    log:
        f"{LOGS}/30_forecasting.log",
    benchmark:
        f"{LOGS}/30_forecasting.bench"
    conda:
        ENVIRONMENT
    params:
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
