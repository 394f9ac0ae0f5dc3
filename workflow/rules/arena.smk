"""Stage 86: the recorded scores of the arena. A checkout without them has no such stage."""

ARENA = ours("data/arena") if Path(ROOT, "data/arena").is_dir() else None
ENTRIES = committed(*sorted(Path(ARENA).glob("*.json"))) if ARENA else []


rule arena:
    "Show the recorded scores of the arena's entries."
    input:
        entries=ENTRIES,
    output:
        notebook=f"{NOTEBOOKS}/86_arena.ipynb",
    log:
        f"{LOGS}/86_arena.log",
    benchmark:
        f"{LOGS}/86_arena.bench"
    conda:
        ENVIRONMENT
    params:
        source="notebooks/86_arena.ipynb",
        code=code_of("86_arena", figures=True),
        notebook=parameters(results=RESULTS, entries=ARENA),
    message:
        "arena: 86_arena"
    shell:
        RUN_NOTEBOOK


if ARENA:
    DRAWINGS["arena"] = {
        "tables": ENTRIES,
        "figures": ["arena"],
        "options": {"entries": ARENA},
    }
