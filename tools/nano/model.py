"""DeepSeek-V3 (MLA, noaux_tc mixture of experts, MTP) in plain PyTorch, quick on a CPU.

Parameters are one flat dict under DeepSeek's checkpoint names, except that the experts of a layer
are stacked into one tensor and gate and up projections are joined; `checkpoint_names` and
`training_names` translate. Shapes: B rows, S positions, T tokens, H hidden, K experts per token.
"""

import math

import torch
import torch.nn.functional as F

from ops import FromExperts, GroupedLinear, RmsNorm, SwiGlu, ToExperts

CONFIG = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "vocab_size": 512,
    "hidden_size": 256,
    "intermediate_size": 512,
    "moe_intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_nextn_predict_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "q_lora_rank": 128,
    "kv_lora_rank": 128,
    "qk_nope_head_dim": 64,
    "qk_rope_head_dim": 32,
    "v_head_dim": 64,
    "n_routed_experts": 16,
    "n_shared_experts": 1,
    "num_experts_per_tok": 4,
    "n_group": 4,
    "topk_group": 2,
    "topk_method": "noaux_tc",
    "scoring_func": "sigmoid",
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
    "ep_size": 1,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "max_position_embeddings": 4096,
    "rope_theta": 10000,
    "rope_scaling": {
        "type": "yarn",
        "factor": 4,
        "original_max_position_embeddings": 1024,
        "beta_fast": 32,
        "beta_slow": 1,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
    },
    "initializer_range": 0.02,
    "tie_word_embeddings": False,
    "use_cache": True,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
    "torch_dtype": "bfloat16",
}

_MASKED = -1e9
BIAS = "gate.e_score_correction_bias"


def _layer_shapes(config, index):
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    nope, rope, value = config["qk_nope_head_dim"], config["qk_rope_head_dim"], config["v_head_dim"]
    q_rank, kv_rank = config["q_lora_rank"], config["kv_lora_rank"]
    layer = f"model.layers.{index}."
    attention, mlp = layer + "self_attn.", layer + "mlp."
    shapes = {
        layer + "input_layernorm.weight": (hidden,),
        layer + "post_attention_layernorm.weight": (hidden,),
        attention + "q_a_proj.weight": (q_rank, hidden),
        attention + "q_a_layernorm.weight": (q_rank,),
        attention + "q_b_proj.weight": (heads * (nope + rope), q_rank),
        attention + "kv_a_proj_with_mqa.weight": (kv_rank + rope, hidden),
        attention + "kv_a_layernorm.weight": (kv_rank,),
        attention + "kv_b_proj.weight": (heads * (nope + value), kv_rank),
        attention + "o_proj.weight": (hidden, heads * value),
    }
    if index < config["first_k_dense_replace"]:
        width = config["intermediate_size"]
        return shapes | {
            mlp + "gate_up": (2 * width, hidden),
            mlp + "down_proj.weight": (hidden, width),
        }
    width, experts = config["moe_intermediate_size"], config["n_routed_experts"]
    shared = width * config["n_shared_experts"]
    return shapes | {
        mlp + "gate.weight": (experts, hidden),
        mlp + "experts.gate_up": (experts, 2 * width, hidden),
        mlp + "experts.down": (experts, hidden, width),
        mlp + "shared_experts.gate_up": (2 * shared, hidden),
        mlp + "shared_experts.down_proj.weight": (hidden, shared),
    }


def trunk_shapes(config) -> dict:
    """Name -> shape of what predicts the next token."""
    hidden, vocab = config["hidden_size"], config["vocab_size"]
    shapes = {
        "model.embed_tokens.weight": (vocab, hidden),
        "model.norm.weight": (hidden,),
        "lm_head.weight": (vocab, hidden),
    }
    for index in range(config["num_hidden_layers"]):
        shapes |= _layer_shapes(config, index)
    return shapes


def mtp_shapes(config) -> dict:
    """Name -> shape of the layer that drafts the token after next; embedding, head: the trunk's."""
    hidden, index = config["hidden_size"], config["num_hidden_layers"]
    layer = f"model.layers.{index}."
    return _layer_shapes(config, index) | {
        layer + "enorm.weight": (hidden,),
        layer + "hnorm.weight": (hidden,),
        layer + "eh_proj.weight": (hidden, 2 * hidden),
        layer + "shared_head.norm.weight": (hidden,),
    }


def initial_parameters(shapes: dict, seed: int) -> dict:
    """Scaled normal weights; what writes into the residual stream starts at half size."""
    generator = torch.Generator().manual_seed(seed)
    parameters = {}
    for name, shape in shapes.items():
        if len(shape) == 1:
            parameters[name] = torch.ones(shape)
            continue
        scale = shape[-1] ** -0.5
        if "embed" in name:
            scale = 0.5
        elif any(part in name for part in ("lm_head", "o_proj", "down")):
            scale *= 0.5
        parameters[name] = torch.randn(shape, generator=generator) * scale
    return parameters


def initial_biases(shapes: dict) -> dict:
    """The gates' correction biases: steered by load, not by gradient, so they live apart."""
    return {
        name.removesuffix("gate.weight") + BIAS: torch.zeros(shape[0])
        for name, shape in shapes.items()
        if name.endswith("gate.weight")
    }


# ---------------------------------------------------------------------------------- names


def checkpoint_names(parameters: dict) -> dict:
    """Training names -> DeepSeek's, one tensor per projection and expert."""
    named = {}
    for name, value in parameters.items():
        stem, _, last = name.rpartition(".")
        if last == "gate_up" and value.dim() == 3:
            for expert, joined in enumerate(value):
                gate, up = joined.chunk(2)
                (
                    named[f"{stem}.{expert}.gate_proj.weight"],
                    named[f"{stem}.{expert}.up_proj.weight"],
                ) = gate, up
        elif last == "gate_up":
            named[stem + ".gate_proj.weight"], named[stem + ".up_proj.weight"] = value.chunk(2)
        elif name.endswith("experts.down"):
            named |= {
                f"{stem}.{expert}.down_proj.weight": down for expert, down in enumerate(value)
            }
        else:
            named[name] = value
    return {name: value.contiguous().clone() for name, value in named.items()}


def training_names(named: dict, config: dict) -> dict:
    """DeepSeek's names -> training names, the MTP layer included where the checkpoint has one."""
    shapes = trunk_shapes(config)
    if config["num_nextn_predict_layers"]:
        shapes |= mtp_shapes(config)
    parameters = {}
    for name, shape in shapes.items():
        stem, _, last = name.rpartition(".")
        if last == "gate_up" and len(shape) == 3:
            parameters[name] = torch.stack(
                [
                    torch.cat(
                        [named[f"{stem}.{expert}.{part}_proj.weight"] for part in ("gate", "up")]
                    )
                    for expert in range(shape[0])
                ]
            )
        elif last == "gate_up":
            parameters[name] = torch.cat(
                [named[f"{stem}.{part}_proj.weight"] for part in ("gate", "up")]
            )
        elif name.endswith("experts.down"):
            parameters[name] = torch.stack(
                [named[f"{stem}.{e}.down_proj.weight"] for e in range(shape[0])]
            )
        else:
            parameters[name] = named[name]
    return parameters | {name: named[name] for name in initial_biases(shapes)}


# ---------------------------------------------------------------------------------- the model


def yarn(config) -> tuple:
    """(inverse frequencies [rope / 2], factor on the softmax scale) of DeepSeek's YaRN."""
    dim, base, scaling = config["qk_rope_head_dim"], config["rope_theta"], config["rope_scaling"]
    frequency = base ** (-torch.arange(0, dim, 2, dtype=torch.float) / dim)

    def dimension_of(rotations):
        turn = scaling["original_max_position_embeddings"] / (rotations * 2 * math.pi)
        return dim * math.log(turn) / (2 * math.log(base))

    low = max(math.floor(dimension_of(scaling["beta_fast"])), 0)
    high = min(math.ceil(dimension_of(scaling["beta_slow"])), dim - 1)
    ramp = ((torch.arange(dim // 2, dtype=torch.float) - low) / max(high - low, 0.001)).clamp(0, 1)
    scale = 0.1 * scaling["mscale_all_dim"] * math.log(scaling["factor"]) + 1.0
    return frequency / scaling["factor"] * ramp + frequency * (1 - ramp), scale * scale


def attention_mask(queries, keys, heads, dtype):
    """Additive mask [B * heads, S, T]: causal, and never across the documents of a packed row.

    `queries` [B, S] and `keys` [B, T] name each position's document; the queries are the last keys.
    """
    batch, length = queries.shape
    total = keys.shape[1]
    future = torch.ones(length, total, dtype=torch.bool).triu(total - length + 1)
    blocked = future | (queries[:, :, None] != keys[:, None, :])
    mask = torch.zeros(blocked.shape, dtype=dtype).masked_fill_(blocked, _MASKED)
    return mask[:, None].expand(batch, heads, length, total).reshape(batch * heads, length, total)


class Nano:
    """The forward pass over a dict of parameters, in whatever dtype those have.

    `rows_multiple`: rows per expert are padded to it, so that oneDNN meets few distinct shapes and
    finds its compiled kernels again; 1 adds nothing. `loads` holds each gate's tokens per expert
    from the latest pass. A `cache`, an empty dict at first, collects each layer's keys and values.
    """

    def __init__(self, config: dict, rows_multiple: int = 1):
        self.config = config
        self.rows_multiple = rows_multiple
        self.loads = {}
        frequency, factor = yarn(config)
        angle = torch.arange(config["max_position_embeddings"]).float()[:, None] * frequency
        self._cos, self._sin = angle.cos(), angle.sin()
        self._scale = factor * (config["qk_nope_head_dim"] + config["qk_rope_head_dim"]) ** -0.5

    def hidden(self, parameters, ids, mask, cache=None):
        """Ids [B, S] -> the trunk's output after the final norm [B, S, H]."""
        x = F.embedding(ids, parameters["model.embed_tokens.weight"])
        for index in range(self.config["num_hidden_layers"]):
            x = self._layer(parameters, index, x, mask, cache)
        return self._norm(x, parameters["model.norm.weight"])

    def draft_hidden(self, parameters, hidden, next_ids, mask):
        """The MTP layer: from the trunk's hidden at t and token t + 1 it drafts token t + 2.

        As in DeepSeek-V3's published weights and the engines that serve them, the embedding comes
        first in the concatenation, and `hidden` has been through the trunk's final norm.
        """
        index = self.config["num_hidden_layers"]
        layer = f"model.layers.{index}."
        embedded = self._norm(
            F.embedding(next_ids, parameters["model.embed_tokens.weight"]),
            parameters[layer + "enorm.weight"],
        )
        joined = torch.cat([embedded, self._norm(hidden, parameters[layer + "hnorm.weight"])], -1)
        x = self._layer(
            parameters, index, F.linear(joined, parameters[layer + "eh_proj.weight"]), mask, None
        )
        return self._norm(x, parameters[layer + "shared_head.norm.weight"])

    def _norm(self, x, weight):
        return RmsNorm.apply(x, weight, self.config["rms_norm_eps"])

    def _layer(self, parameters, index, x, mask, cache):
        layer = f"model.layers.{index}."
        normed = self._norm(x, parameters[layer + "input_layernorm.weight"])
        x = x + self._attention(parameters, layer + "self_attn.", normed, mask, cache)
        normed = self._norm(x, parameters[layer + "post_attention_layernorm.weight"])
        if index < self.config["first_k_dense_replace"]:
            return x + self._mlp(parameters, layer + "mlp.", normed)
        return x + self._experts(parameters, layer + "mlp.", normed)

    def _rotate(self, x, start):
        """Rotary embedding of x [B, S, ..., rope] in DeepSeek's interleaved pairing."""
        cos, sin = (
            table[start : start + x.shape[1]].to(x.dtype) for table in (self._cos, self._sin)
        )
        if x.dim() == 4:
            cos, sin = cos[:, None], sin[:, None]
        even, odd = x[..., 0::2], x[..., 1::2]
        return torch.cat([even * cos - odd * sin, odd * cos + even * sin], -1)

    def _attention(self, parameters, name, x, mask, cache):
        config = self.config
        batch, length, _ = x.shape
        heads, nope, value = (
            config["num_attention_heads"],
            config["qk_nope_head_dim"],
            config["v_head_dim"],
        )
        rank, rope = config["kv_lora_rank"], config["qk_rope_head_dim"]
        start = cache[name][0].shape[2] if cache and name in cache else 0
        q = self._norm(
            F.linear(x, parameters[name + "q_a_proj.weight"]),
            parameters[name + "q_a_layernorm.weight"],
        )
        q = F.linear(q, parameters[name + "q_b_proj.weight"]).view(
            batch, length, heads, nope + rope
        )
        q = (
            torch.cat([q[..., :nope], self._rotate(q[..., nope:], start)], -1).transpose(1, 2)
            * self._scale
        )
        compressed = F.linear(x, parameters[name + "kv_a_proj_with_mqa.weight"])
        latent = self._norm(compressed[..., :rank], parameters[name + "kv_a_layernorm.weight"])
        expanded = F.linear(latent, parameters[name + "kv_b_proj.weight"]).view(
            batch, length, heads, nope + value
        )
        key_rope = self._rotate(compressed[..., rank:], start)[:, :, None].expand(
            batch, length, heads, rope
        )
        k = torch.cat([expanded[..., :nope], key_rope], -1).transpose(1, 2)
        v = expanded[..., nope:].transpose(1, 2)
        if cache is not None:
            if name in cache:
                k, v = torch.cat([cache[name][0], k], 2), torch.cat([cache[name][1], v], 2)
            cache[name] = (k, v)
        total = k.shape[2]
        k, v = k.transpose(2, 3), v.reshape(batch * heads, total, value)
        scores = torch.baddbmm(
            mask, q.reshape(batch * heads, length, -1), k.reshape(batch * heads, -1, total)
        )
        out = torch.bmm(torch.softmax(scores, -1), v).view(batch, heads, length, value)
        out = out.transpose(1, 2).reshape(batch, length, heads * value)
        return F.linear(out, parameters[name + "o_proj.weight"])

    def _mlp(self, parameters, name, x):
        gate_up = F.linear(x, parameters[name + "gate_up"])
        return F.linear(SwiGlu.apply(gate_up), parameters[name + "down_proj.weight"])

    def _route(self, parameters, name, x):
        """Experts of each token and their weights, both [T, K]: bias chooses, score weighs."""
        config = self.config
        experts, groups = config["n_routed_experts"], config["n_group"]
        scores = F.linear(x.float(), parameters[name + "gate.weight"].float()).sigmoid()
        with torch.no_grad():
            biased = scores + parameters[name + BIAS]
            group_scores = biased.view(-1, groups, experts // groups).topk(2, -1)[0].sum(-1)
            kept = torch.zeros_like(group_scores).scatter_(
                1, group_scores.topk(config["topk_group"], -1)[1], 1.0
            )
            dropped = kept.repeat_interleave(experts // groups, 1) == 0
            chosen = biased.masked_fill(dropped, float("-inf")).topk(
                config["num_experts_per_tok"], -1
            )[1]
        weights = scores.gather(1, chosen)
        weights = (
            weights / (weights.sum(-1, keepdim=True) + 1e-20) * config["routed_scaling_factor"]
        )
        return chosen, weights

    def _experts(self, parameters, name, x):
        shape, slots = x.shape, self.config["num_experts_per_tok"]
        x = x.reshape(-1, shape[-1])
        chosen, weights = self._route(parameters, name, x)
        flat = chosen.flatten()
        order = flat.argsort(stable=True)
        counts = torch.bincount(flat, minlength=self.config["n_routed_experts"])
        self.loads[name + BIAS] = counts
        padded = (counts + self.rows_multiple - 1) // self.rows_multiple * self.rows_multiple
        ends = padded.cumsum(0)
        # Sorted entry i of expert e sits at row i, moved down by the padding of earlier experts.
        shift = (ends - padded) - (counts.cumsum(0) - counts)
        row = torch.arange(order.numel()) + torch.repeat_interleave(shift, counts)
        ends = ends.tolist()
        token_of_row = torch.zeros(ends[-1], dtype=torch.long).index_copy_(0, row, order // slots)
        row_of_slot = torch.empty_like(order).index_copy_(0, order, row)
        rows = ToExperts.apply(x, token_of_row, row_of_slot, slots)
        rows = SwiGlu.apply(GroupedLinear.apply(rows, parameters[name + "experts.gate_up"], ends))
        rows = GroupedLinear.apply(rows, parameters[name + "experts.down"], ends)
        routed = FromExperts.apply(rows, row_of_slot).view(-1, slots, shape[-1])
        routed = torch.bmm(weights.to(x.dtype)[:, None], routed)[:, 0]
        return (routed + self._mlp(parameters, name + "shared_experts.", x)).view(shape)
