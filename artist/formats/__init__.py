"""Model folders, image tokenizers and predictions on disk; import and export of other formats.

Model folders: `load_model`, `save_model`. Image tokenizers: `load_image_tokenizer`,
`save_image_tokenizer`. EasyNLP's model directories: `import_easynlp`, `export_easynlp`. MUGE
submissions: `export_muge`.
"""

from typing import TYPE_CHECKING

from data.lazy import lazy_exports

if TYPE_CHECKING:
    from artist.formats.easynlp import export_easynlp, import_easynlp
    from artist.formats.image_tokenizer_folder import load_image_tokenizer, save_image_tokenizer
    from artist.formats.model_folder import Model, load_model, read_config, save_model
    from artist.formats.muge import export_muge
    from artist.formats.predictions import write_predictions

__all__ = [
    "Model",
    "export_easynlp",
    "export_muge",
    "import_easynlp",
    "load_image_tokenizer",
    "load_model",
    "read_config",
    "save_image_tokenizer",
    "save_model",
    "write_predictions",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "Model": "artist.formats.model_folder",
        "export_easynlp": "artist.formats.easynlp",
        "export_muge": "artist.formats.muge",
        "import_easynlp": "artist.formats.easynlp",
        "load_image_tokenizer": "artist.formats.image_tokenizer_folder",
        "load_model": "artist.formats.model_folder",
        "read_config": "artist.formats.model_folder",
        "save_image_tokenizer": "artist.formats.image_tokenizer_folder",
        "save_model": "artist.formats.model_folder",
        "write_predictions": "artist.formats.predictions",
    },
)
