"""The tiny models of tests/golden: each holds some of what the served models vary in.

Sizes are chosen to leave tails: widths that are no multiple of 32 (the arithmetic's tile along K)
or of 128 (the FP8 scale blocks), contexts longer than YaRN's original one. Seeds are chosen so that
near-ties between experts change the bfloat16 run's answers little: it is the measure also of the
runs in which every side takes its own experts, and would hide mistakes in them.
"""

import torch

from checkpoints import Recipe, yarn

_SMALL = {
    "hidden_size": 64,
    "intermediate_size": 100,
    "moe_intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "kv_lora_rank": 40,
    "qk_nope_head_dim": 20,
    "qk_rope_head_dim": 12,
    "v_head_dim": 24,
    "first_k_dense_replace": 1,
    "max_position_embeddings": 256,
    "vocab_size": 128,
}

RECIPES = {
    # DeepSeek-V3 itself, small: query compression, groups, one shared expert, YaRN.
    "v3_q_lora": Recipe(
        "deepseek_v3",
        _SMALL
        | {
            "vocab_size": 300,
            "num_hidden_layers": 3,
            "q_lora_rank": 48,
            "n_routed_experts": 6,
            "n_group": 3,
            "topk_group": 2,
            "num_experts_per_tok": 3,
            "n_shared_experts": 1,
            "rope_scaling": yarn(4.0, 64, mscale=1.0, mscale_all_dim=1.0),
        },
        seed=4,
    ),
    # As published: FP8 blocks with partial ones in both directions, and an MTP layer.
    "v3_fp8_mtp": Recipe(
        "deepseek_v3",
        {
            "hidden_size": 72,
            "intermediate_size": 132,
            "moe_intermediate_size": 20,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "q_lora_rank": 24,
            "kv_lora_rank": 136,
            "qk_nope_head_dim": 24,
            "qk_rope_head_dim": 16,
            "v_head_dim": 24,
            "n_routed_experts": 4,
            "n_group": 2,
            "topk_group": 1,
            "num_experts_per_tok": 2,
            "n_shared_experts": 1,
            "first_k_dense_replace": 1,
            "routed_scaling_factor": 2.5,
            "norm_topk_prob": True,
            "scoring_func": "sigmoid",
            "topk_method": "noaux_tc",
            "num_nextn_predict_layers": 1,
            "max_position_embeddings": 256,
            "vocab_size": 48,
            "rope_theta": 10000,
            "rope_scaling": yarn(4, 64, beta_fast=32, beta_slow=1, mscale=1.0, mscale_all_dim=1.0),
        },
        fp8=True,
    ),
    # Moonlight: no query compression, one group, two shared experts, plain rope; in shards.
    "v3_moonlight": Recipe(
        "deepseek_v3",
        _SMALL
        | {
            "q_lora_rank": None,
            "n_routed_experts": 6,
            "n_group": 1,
            "topk_group": 1,
            "num_experts_per_tok": 3,
            "n_shared_experts": 2,
            "routed_scaling_factor": 2.446,
            "rms_norm_eps": 1e-5,
            "rope_theta": 50000.0,
        },
        shard_bytes=60_000,
    ),
    # Straight from save_pretrained in float32: no shared expert, no dense layer, weights of the
    # gate not normalised, rope in halves.
    "v3_float32": Recipe(
        "deepseek_v3",
        _SMALL
        | {
            "hidden_size": 40,
            "moe_intermediate_size": 12,
            "vocab_size": 96,
            "q_lora_rank": 24,
            "first_k_dense_replace": 0,
            "n_routed_experts": 6,
            "n_group": 3,
            "topk_group": 3,
            "num_experts_per_tok": 2,
            "n_shared_experts": 0,
            "norm_topk_prob": False,
            "routed_scaling_factor": 1.5,
            "rope_interleave": False,
            "rope_scaling": yarn(2.0, 128, mscale=0.5),
        },
        dtype=torch.float32,
    ),
    # Only dense layers, in the config layout of transformers 4, with an eos list.
    "v3_dense": Recipe(
        "deepseek_v3",
        _SMALL | {"q_lora_rank": 36, "first_k_dense_replace": 2, "tie_word_embeddings": True},
        config_changes={
            "rope_parameters": None,
            "rope_theta": 10000.0,
            "rope_scaling": None,
            "torch_dtype": "bfloat16",
            "eos_token_id": [5, 3],
        },
    ),
    # DeepSeek-V2-Lite: softmax gate without groups, two shared experts, YaRN with mscale 0.707.
    "v2_lite": Recipe(
        "deepseek_v2",
        _SMALL
        | {
            "q_lora_rank": None,
            "n_routed_experts": 6,
            "num_experts_per_tok": 2,
            "n_shared_experts": 2,
            "topk_method": "greedy",
            "rope_scaling": yarn(4.0, 64, mscale=0.707, mscale_all_dim=0.707),
        },
    ),
    # DeepSeek-V2: softmax gate limited to groups; here with tied embeddings and FP8 weights.
    "v2_grouped_fp8_tied": Recipe(
        "deepseek_v2",
        _SMALL
        | {
            "q_lora_rank": 48,
            "n_routed_experts": 8,
            "n_group": 4,
            "topk_group": 2,
            "num_experts_per_tok": 3,
            "n_shared_experts": 1,
            "topk_method": "group_limited_greedy",
            "scoring_func": "softmax",
            "norm_topk_prob": False,
            "routed_scaling_factor": 4.0,
            "rope_theta": 10000.0,
            "tie_word_embeddings": True,
        },
        seed=5,
        fp8=True,
    ),
}
