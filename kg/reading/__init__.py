"""Read a dump of triples: lines of bytes to names and triples of ids.

`triples.read_triples` reads TSV, OwnThink's CSV (plain or gzip) and OpenKE folders and returns a
`graph.Graph`. `name_ids.read_named_triples` reads a dump in the ids of an existing KG folder.
"""

__all__ = ["graph", "name_ids", "names", "row_scanner", "triples"]
