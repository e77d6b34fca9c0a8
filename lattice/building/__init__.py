"""Building of lattice tables from caption files, and exchange with EasyNLP's TSV.

`build` has `build_lattice`, `match_texts` and `TextMatcher`; `easynlp_tsv` has `import_table` and
`export_table`.
"""

__all__ = ["build", "easynlp_tsv"]
