"""FP8 e4m3 weights with one float32 scale per 128x128 block, as DeepSeek-V3 stores them.

`read_dequantized` is how other tools get the float32 weights that a checkpoint stands for.
"""

import json
import re
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

BLOCK = 128
SCALE_SUFFIX = "_scale_inv"
_E4M3_MAX = 448.0
# Projections of attention and of dense, shared and routed MLPs; the rest stays in bf16 or float32.
_QUANTIZED = re.compile(
    r"(self_attn\.\w+_proj(_with_mqa)?|mlp\.(.*\.)?(gate|up|down)_proj)\.weight$"
)


def is_quantized(name: str) -> bool:
    """Whether DeepSeek-V3 stores this weight in FP8."""
    return _QUANTIZED.search(name) is not None


def quantize(weight: torch.Tensor) -> tuple:
    """[rows, columns] -> (e4m3 of that shape, scale [ceil(rows / 128), ceil(columns / 128)])."""
    rows, columns = weight.shape
    padded = F.pad(weight.float(), (0, -columns % BLOCK, 0, -rows % BLOCK))
    blocks = padded.view(padded.shape[0] // BLOCK, BLOCK, padded.shape[1] // BLOCK, BLOCK)
    scale = blocks.abs().amax((1, 3)).clamp(min=1e-12) / _E4M3_MAX
    scaled = (blocks / scale[:, None, :, None]).clamp(-_E4M3_MAX, _E4M3_MAX)
    return scaled.to(torch.float8_e4m3fn).view(padded.shape)[:rows, :columns].contiguous(), scale


def dequantize(weight: torch.Tensor, scale: torch.Tensor, block=(BLOCK, BLOCK)) -> torch.Tensor:
    """The float32 weight [rows, columns] that FP8 codes and their block scales stand for."""
    rows, columns = weight.shape
    spread = (
        scale.float()
        .repeat_interleave(block[0], 0)[:rows]
        .repeat_interleave(block[1], 1)[:, :columns]
    )
    return weight.float() * spread


def dequantized(tensors: dict, block=(BLOCK, BLOCK)) -> dict:
    """All tensors of a checkpoint in float32: scales applied and dropped, others just widened."""
    return {
        name: dequantize(value, tensors[name + SCALE_SUFFIX], block)
        if name + SCALE_SUFFIX in tensors
        else value.float()
        for name, value in tensors.items()
        if not name.endswith(SCALE_SUFFIX)
    }


def read_dequantized(directory) -> tuple:
    """(config without quantization_config, float32 tensors by name) of a Hugging Face directory.

    Reads every *.safetensors in it, so sharded checkpoints work too.
    """
    directory = Path(directory)
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    quantization = config.pop("quantization_config", None) or {}
    tensors = {}
    for path in sorted(directory.glob("*.safetensors")):
        tensors |= load_file(path)
    return config, dequantized(tensors, quantization.get("weight_block_size", (BLOCK, BLOCK)))
