"""Convert open knowledge graphs into triples of names and a file of mentions.

`ConvertConfig` has the settings, `convert.convert_graph` is the command. `rdf` (over `ntriples`),
`wikidata_json`, `tab_files` (ConceptNet, Wikidata5M), `wordnet` and `ownthink` read the formats;
`collector` gathers statements and labels and chooses the names.
"""

from kg.sources.config import ConvertConfig

__all__ = ["ConvertConfig"]
