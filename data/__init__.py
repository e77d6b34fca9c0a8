"""What all stages share: tables, runs and manifests, images, tokenizer, KG folder, errors.

No module imports torch when it is imported. `data.datasets` is a stage of its own on top.
"""

from typing import TYPE_CHECKING

from data.lazy import lazy_exports

if TYPE_CHECKING:
    from data.errors import (
        ArtefactError,
        ConfigError,
        InputError,
        Interrupted,
        RowError,
        SchemaError,
        SkipReason,
        ToolkitError,
        did_you_mean,
    )
    from data.images import (
        Header,
        check_image,
        decode_base64,
        decode_image,
        encode_png,
        encode_webp,
        read_header,
        split_images,
        square,
    )
    from data.jit import fnv1a, in_threads
    from data.kg_folder import (
        check_vectors,
        kg_fingerprint,
        map_vectors,
        open_names,
        read_names,
        read_vectors,
        write_names,
    )
    from data.malloc import reuse_freed_memory
    from data.names import Names
    from data.opencv_resize import opencv_square
    from data.plot import new_figure, save_svg, style, to_svg
    from data.read_ahead import lookahead, map_ahead
    from data.runs import (
        Manifest,
        Run,
        StageReport,
        atomic,
        fingerprint,
        read_manifest,
        save_text,
        sha256,
        verify,
        versions,
        write_json,
    )
    from data.schema import (
        CODES,
        IMAGE,
        LATTICE,
        MORE_CODES,
        TRIPLES,
        Shards,
        is_parquet,
        open_shards,
        open_table,
        table_files,
        table_metadata,
        table_writer,
        with_metadata,
    )
    from data.seeds import stream
    from data.signals import StopFlag, stop_signals
    from data.tokenizer import (
        SPECIAL_TOKENS,
        Tokenizer,
        Tokens,
        character_vocabulary,
        tokenizer_folder,
        tokenizer_of,
        write_character_vocabulary,
    )
    from data.tsv import (
        Rejected,
        Rejects,
        Row,
        bounded_lines,
        is_gzip,
        is_utf8,
        one_line,
        open_bytes,
        read_rows,
        read_start,
        wrong_column_count,
    )

__all__ = [
    "CODES", "IMAGE", "LATTICE", "MORE_CODES", "SPECIAL_TOKENS", "TRIPLES", "ArtefactError",
    "ConfigError", "Header", "InputError", "Interrupted", "Manifest", "Names", "Rejected",
    "Rejects", "Row", "RowError", "Run", "SchemaError", "Shards", "SkipReason", "StageReport",
    "StopFlag", "Tokenizer", "Tokens", "ToolkitError", "atomic", "bounded_lines",
    "character_vocabulary", "check_image", "check_vectors", "decode_base64", "decode_image",
    "did_you_mean", "encode_png", "encode_webp", "fingerprint", "fnv1a", "in_threads",
    "is_gzip", "is_parquet", "is_utf8", "kg_fingerprint", "lookahead", "map_ahead",
    "map_vectors", "new_figure", "one_line", "open_bytes", "open_names", "open_shards",
    "open_table", "opencv_square", "read_header", "read_manifest", "read_names", "read_rows",
    "read_start", "read_vectors", "reuse_freed_memory", "save_svg", "save_text", "sha256",
    "split_images", "square", "stop_signals", "stream", "style", "table_files",
    "table_metadata", "table_writer", "to_svg", "tokenizer_folder", "tokenizer_of", "verify",
    "versions", "with_metadata", "write_character_vocabulary", "write_json", "write_names",
    "wrong_column_count",
]  # fmt: skip
_EXPORTS = {  # module -> its public names
    "errors": (
        "ArtefactError ConfigError InputError Interrupted RowError SchemaError SkipReason "
        "ToolkitError did_you_mean"
    ),
    "images": (
        "Header check_image decode_base64 decode_image encode_png encode_webp read_header "
        "split_images square"
    ),
    "jit": "fnv1a in_threads",
    "kg_folder": (
        "check_vectors kg_fingerprint map_vectors open_names read_names read_vectors write_names"
    ),
    "malloc": "reuse_freed_memory",
    "names": "Names",
    "opencv_resize": "opencv_square",
    "plot": "new_figure save_svg style to_svg",
    "read_ahead": "lookahead map_ahead",
    "runs": (
        "Manifest Run StageReport atomic fingerprint read_manifest save_text sha256 verify "
        "versions write_json"
    ),
    "schema": (
        "CODES IMAGE LATTICE MORE_CODES TRIPLES Shards is_parquet open_shards open_table "
        "table_files table_metadata table_writer with_metadata"
    ),
    "seeds": "stream",
    "signals": "StopFlag stop_signals",
    "tokenizer": (
        "SPECIAL_TOKENS Tokenizer Tokens character_vocabulary tokenizer_folder tokenizer_of "
        "write_character_vocabulary"
    ),
    "tsv": (
        "Rejected Rejects Row bounded_lines is_gzip is_utf8 one_line open_bytes read_rows "
        "read_start wrong_column_count"
    ),
}
__getattr__ = lazy_exports(
    __name__,
    {name: f"data.{module}" for module, names in _EXPORTS.items() for name in names.split()},
)
