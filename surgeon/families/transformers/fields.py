"""Name the fields of transformers' configs about blocks, classes, images and ties.

A field counts only where its value matches the network (see :class:`BlockFields`), so a name may be listed although it
means something else in some configs. Counts of other layers are left out: feature extractors
(``num_feat_extract_layers``), adapters, mask decoders.
"""

from __future__ import annotations

from surgeon.interfaces.family import BlockFields, ConfigFields

BLOCKS = BlockFields(
    counts=(
        "num_hidden_layers", "*_num_hidden_layers", "num_layers", "n_layer", "n_layers", "layers", "depth",
        "num_blocks", "n_blocks", "encoder_layers", "decoder_layers", "num_encoder_layers", "num_decoder_layers",
        "n_encoder_layers", "n_decoder_layers", "encoder_num_layers", "decoder_num_layers", "encoder_depth",
        "decoder_depth", "text_encoder_num_layers", "speech_encoder_layers", "t2u_encoder_layers",
        "t2u_decoder_layers", "l_layers", "r_layers", "x_layers", "query_dec_layers", "c2f_num_blocks",
        "num_attention_layers", "num_auxiliary_layers", "num_global_layers", "num_pooler_layers",
        "num_spatial_layers", "num_temporal_layers", "num_timestamp_prediction_layers", "num_mel_attn_blocks",
        "num_layers_per_stack", "num_self_attends_per_block", "n_input_layers", "n_output_layers",
        "n_recurrent_layers", "memory_attention_num_layers", "memory_fuser_num_layers",
        "num_patch_transformer_layers", "aligner_num_add_layers", "parcae_num_coda_layers",
    ),
    depths=(
        "depths", "depth", "layers", "num_layers", "num_blocks", "blocks_per_stage", "block_sizes",
        "stage_num_blocks", "stage_numb_of_layers", "n_attn_blocks", "encoder_depths", "decoder_depths",
        "encoder_layers", "decoder_layers", "num_hidden_layers", "num_block_repeats",
    ),
    entries=(
        "layer_types", "layers_block_type", "mlp_layer_types", "attention_layers", "attn_layers",
        "no_rope_layers", "layer_rope_theta", "num_attention_heads_per_layer", "num_key_value_heads_per_layer",
        "gnn_layers_types", "attention_window", "activation_sparsity_pattern", "intermediate_size",
        "sliding_windows", "indexer_types",
    ),
    cycles=("block_types",),
    kinds=("layer_types", "layers_block_type"),
    attends=("*attention*", "hybrid", "!linear*"),
    positions=(
        "hybrid_layer_ids", "attn_layer_indices", "full_*_idxs", "full*_indexes", "full*_indices", "global_*_idxs",
        "global_*_indexes", "global_*_indices", "window_*_indexes", "window_*_indices", "residual_*_indices",
        "mlp_only_layers", "moe_layers", "cross_attention_layers", "rope_scaling_layers", "local_layer_ids",
        "ple_layer_ids", "subsample_layers",
    ),
    features=("deepstack*_indexes", "extract_layers"),
    first=("first_k_dense_replace", "num_dense_layers"),
    last=("num_kv_shared_layers",),
    sharing=("kv_sharing_modes",),
)  # fmt: skip

TRANSFORMERS_CONFIG = ConfigFields(
    blocks=(BLOCKS,),
    class_count=("num_labels",),  # computed from id2label, but a field of its own in PVT's config
    class_names=("id2label", "label_names"),  # TimmWrapper's config reads its names from the list when it is loaded
    class_numbers=("label2id",),
    problem_type="problem_type",
    channels=("num_channels", "in_channels", "in_chans", "num_input_channels"),
    image_size=("image_size",),
    patch_size=("patch_size",),
    tied=("tie_word_embeddings",),
    block_parameters=("layer_weights",),
)

MODULE_SETTINGS = ConfigFields(
    attribute="",
    class_count=("num_labels", "num_classes"),
    channels=("num_channels", "in_channels", "in_chans", "num_input_channels"),
)
"""Names of settings that modules of any library keep as attributes."""

INDEX_ATTRIBUTES = ("layer_idx", "layer_id", "layer_index", "block_idx", "idx")
"""Attributes that hold a block's position; a decoder's cache is indexed by it."""
BLOCK_REFERENCES = ("kv_shared_layer_index",)
"""Attributes that hold the position of another block, whose keys and values the block reads."""

MUTABLE = frozenset(
    (
        "shift_size", "window_size", "cached_sequence_length", "pooling_mult", "seq_len", "expert_capacity",
        "main_input_name",
    )
)  # fmt: skip
"""Attributes that a forward changes: Swin shrinks windows to the image, CLVP caches rotations, Funnel counts pooling
steps, NLLB sets expert capacity, Seamless the main input."""
