"""Tables of experiments: in files, summarized, compared in pairs, and written into pages."""
