"""Reports: the record of a run, what other compressors reach, tables. No torch at import."""
