"""`snakemake --cores all` here runs workflow/Snakefile; `snakemake --list` describes the rules."""


include: "workflow/Snakefile"


# `include` ignores which rule is the default of the included file.
workflow.default_target = "all"
