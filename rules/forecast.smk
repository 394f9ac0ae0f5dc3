"""Stage 30: the Bayesian forecaster, fitted offline and scored against the others; it needs training days."""


rule forecast:
    "Fit the Bayesian forecaster on the training days and score every forecaster on the evaluation day."
    input:
        notebook=local("notebooks/30_forecasting.ipynb"),
        modules=local(modules_of("30_forecasting")),
        requests=rules.traces.output.requests,
        jobs=rules.traces.output.jobs,
        posterior=[local(CONFIG.forecast.posterior)] if CONFIG.forecast.posterior else [],
    output:
        scores=f"{RESULTS}/forecast/scores.csv",
        samples=f"{RESULTS}/forecast/samples.npz",
        posterior=f"{RESULTS}/forecast/posterior.npz",
        captions=f"{RESULTS}/figures/captions-forecast.json",
        figures=figures_named(
            "fig08_forecast", "fig30_calibration", "fig31_pit", "fig32_scores", "fig33_predictive_check"
        ),
        notebook=f"{NOTEBOOKS}/30_forecasting.ipynb",
    log:
        f"{LOGS}/30_forecasting.log",
    benchmark:
        f"{LOGS}/30_forecasting.bench"
    conda:
        ENVIRONMENT
    params:
        notebook=parameters(
            results=RESULTS,
            **CONFIG.forecast.model_dump(),
            published=PUBLISHED_TABLES if CONFIG.workload == PUBLISHED else None,
        ),
    message:
        "forecast: 30_forecasting"
    shell:
        RUN_NOTEBOOK
