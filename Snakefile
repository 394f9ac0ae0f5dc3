"""The pipeline from traces to figures: `snakemake --cores all` runs workflow/Snakefile.

`snakemake --list` describes the rules.
"""


include: "workflow/Snakefile"


# An included file sets no default target.
workflow.default_target = "all"
