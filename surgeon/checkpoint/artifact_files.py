"""Names of the files in an artifact."""

MANIFEST = "surgeon.json"
RECIPE = "recipe.yaml"
CONFIG = "config.json"
"""The config of a stock transformers class."""
WEIGHTS = "model.safetensors"
SIGNATURE = "model.sig"
"""The signature of the other files; see ``surgeon.pipeline.signature``."""
