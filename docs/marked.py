"""Generated tables in pages: each stands between a comment that names its script and END."""

END = "<!-- end of table -->"


def with_table(page: str, name: str, table: str) -> str:
    """The page, with the table after the comment `<!-- name -->` replaced by `table`."""
    begin = f"<!-- {name} -->\n"
    before, rest = page.split(begin)
    _, after = rest.split(END, 1)
    return f"{before}{begin}\n{table}\n\n{END}{after}"
