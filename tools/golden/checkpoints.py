"""Tiny random checkpoints in Hugging Face layout, with weights of a size that makes real answers.

The weights depend on (seed, tensor name) alone, so a checkpoint can be made again bit for bit.
"""

import json
import math
import sys
import tempfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy
import torch
import transformers
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "nano"))
from fp8 import BLOCK, SCALE_SUFFIX, is_quantized, quantize

FAMILIES = {
    "deepseek_v2": (transformers.DeepseekV2Config, transformers.DeepseekV2ForCausalLM),
    "deepseek_v3": (transformers.DeepseekV3Config, transformers.DeepseekV3ForCausalLM),
}


@dataclass(frozen=True)
class Recipe:
    """How to make one checkpoint."""

    family: str
    config: dict
    seed: int = 1
    dtype: torch.dtype = torch.bfloat16  # of what save_pretrained writes
    # As DeepSeek publishes R1: config.json of transformers 4, FP8 weights with weight_scale_inv,
    # and as many MTP layers as num_nextn_predict_layers says.
    fp8: bool = False
    shard_bytes: int = 0  # 0 = one file
    config_changes: dict = field(default_factory=dict)  # applied to the config.json written


def yarn(factor, original, **others):
    """rope_scaling of a context of factor * original positions."""
    return {
        "type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": original,
        **others,
    }


def random_weight(name: str, shape, seed: int, tied: bool) -> torch.Tensor:
    """Float32 values whose scale keeps activations near 1 and logits a few units apart."""
    generator = numpy.random.Generator(numpy.random.Philox(key=[seed, zlib.crc32(name.encode())]))
    values = torch.from_numpy(generator.standard_normal(tuple(shape), dtype=numpy.float32))
    if name.endswith("e_score_correction_bias"):
        return 0.1 * values
    if len(shape) == 1:
        return 1.0 + 0.1 * values  # a norm
    fan_in = max(shape[1], 1)
    if "embed_tokens" in name:
        return values * (2.0 / math.sqrt(fan_in) if tied else 1.0)
    gain = 2.0 if name.endswith("mlp.gate.weight") or "head" in name else 1.0
    return gain / math.sqrt(fan_in) * values


def _write_json(path: Path, value):
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _random_copy(recipe: Recipe, directory: Path):
    """save_pretrained's files of a model with float32 random weights; returns (names, config)."""
    config_class, model_class = FAMILIES[recipe.family]
    model = model_class(config_class(**recipe.config))
    model.save_pretrained(directory)
    tensors = {
        name: random_weight(name, value.shape, recipe.seed, model.config.tie_word_embeddings)
        for name, value in load_file(directory / "model.safetensors").items()
    }
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return tensors


def _mtp_tensors(recipe: Recipe, tensors: dict, layer: int) -> dict:
    """The tensors of an MTP layer: a decoder layer like the last one, and what joins it on."""
    last, prefix = f"model.layers.{layer - 1}.", f"model.layers.{layer}."
    hidden = tensors["model.norm.weight"].shape[0]
    shapes = {
        prefix + name[len(last) :]: value.shape
        for name, value in tensors.items()
        if name.startswith(last)
    }
    shapes |= {
        prefix + name: (hidden,)
        for name in ("enorm.weight", "hnorm.weight", "shared_head.norm.weight")
    }
    shapes[prefix + "eh_proj.weight"] = (hidden, 2 * hidden)
    made = {name: random_weight(name, shape, recipe.seed, False) for name, shape in shapes.items()}
    made[prefix + "embed_tokens.weight"] = tensors["model.embed_tokens.weight"].clone()
    made[prefix + "shared_head.head.weight"] = tensors["lm_head.weight"].clone()
    return made


def _write_as_deepseek(recipe: Recipe, tensors: dict, directory: Path):
    layers = recipe.config["num_hidden_layers"]
    for i in range(recipe.config.get("num_nextn_predict_layers", 0)):
        tensors |= _mtp_tensors(recipe, tensors, layers + i)
    stored = {}
    for name, value in tensors.items():
        if name.endswith("e_score_correction_bias"):
            stored[name] = value
        elif is_quantized(name):
            stored[name], stored[name + SCALE_SUFFIX] = quantize(value.bfloat16())
        else:
            stored[name] = value.bfloat16()
    save_file(stored, directory / "model.safetensors", metadata={"format": "pt"})
    _write_json(
        directory / "config.json",
        {
            "architectures": [FAMILIES[recipe.family][1].__name__],
            "model_type": recipe.family,
            "torch_dtype": "bfloat16",
            "quantization_config": {
                "activation_scheme": "dynamic",
                "fmt": "e4m3",
                "quant_method": "fp8",
                "weight_block_size": [BLOCK, BLOCK],
            },
        }
        | recipe.config
        | recipe.config_changes,
    )
    _write_json(directory / "generation_config.json", {"bos_token_id": 0, "eos_token_id": [1, 2]})


def _write_as_transformers(recipe: Recipe, scratch: Path, directory: Path):
    model = FAMILIES[recipe.family][1].from_pretrained(scratch, dtype=recipe.dtype)
    model.save_pretrained(directory, max_shard_size=recipe.shard_bytes or 1 << 40)
    if recipe.config_changes:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        _write_json(directory / "config.json", config | recipe.config_changes)


def write(recipe: Recipe, directory: Path):
    """Makes the checkpoint in `directory`, which must be empty or missing."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        tensors = _random_copy(recipe, Path(scratch))
        if recipe.fp8:
            _write_as_deepseek(recipe, tensors, directory)
        else:
            _write_as_transformers(recipe, Path(scratch), directory)
