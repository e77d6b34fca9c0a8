"""Convert open knowledge graphs into triples of names and a file of mentions.

`ConvertConfig` has the settings, `convert.convert_graph` is the command. One module per format
reads its files (`rdf` over `ntriples`, `wikidata_json`, `wikidata5m`, `conceptnet`, `wordnet`,
`ownthink`); `collector` gathers statements and labels and chooses the names.
"""

from kg.sources.config import ConvertConfig

__all__ = ["ConvertConfig"]
