"""What all stages share: tables, runs and manifests, images, tokenizer, KG folder, errors.

No module imports torch when it is imported. `data.datasets` is a stage of its own on top.
"""
