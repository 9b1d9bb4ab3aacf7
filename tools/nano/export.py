"""Writes trained weights as a Hugging Face checkpoint, in FP8 as DeepSeek-V3 is laid out."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

import model
from data.conversation import BOS, CHAT_TEMPLATE, EOS, PAD
from data.tokenizer import BOS_ID, EOS_ID, PAD_ID
from fp8 import BLOCK, SCALE_SUFFIX, is_quantized, quantize

REPLY_TOKENS_MAX = 256


def checkpoint_tensors(weights: dict) -> dict:
    """Training weights -> the checkpoint's tensors; with MTP come copies of embedding and head."""
    named = model.checkpoint_names(weights)
    layer = f"model.layers.{model.CONFIG['num_hidden_layers']}."
    if layer + "eh_proj.weight" in named:
        named[layer + "embed_tokens.weight"] = named["model.embed_tokens.weight"].clone()
        named[layer + "shared_head.head.weight"] = named["lm_head.weight"].clone()
    tensors = {}
    for name, value in named.items():
        if name.endswith(model.BIAS):
            tensors[name] = value.float()
        elif is_quantized(name):
            # Through bf16 first: the FP8 checkpoint is the quantized form of a bf16 one.
            tensors[name], tensors[name + SCALE_SUFFIX] = quantize(value.bfloat16())
        else:
            tensors[name] = value.bfloat16()
    return tensors


def _write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _added_token(text):
    return {
        "__type": "AddedToken",
        "content": text,
        "lstrip": False,
        "normalized": True,
        "rstrip": False,
        "single_word": False,
    }


def export(directory: Path, tokenizer, weights: dict) -> int:
    """Writes the checkpoint's five files; returns the bytes of model.safetensors."""
    directory.mkdir(parents=True, exist_ok=True)
    has_mtp = any(name.endswith("eh_proj.weight") for name in weights)
    config = dict(model.CONFIG)
    config["num_nextn_predict_layers"] = config["num_nextn_predict_layers"] if has_mtp else 0
    config["quantization_config"] = {
        "quant_method": "fp8",
        "fmt": "e4m3",
        "activation_scheme": "dynamic",
        "weight_block_size": [BLOCK, BLOCK],
    }
    with torch.no_grad():
        save_file(
            checkpoint_tensors(weights), directory / "model.safetensors", metadata={"format": "pt"}
        )
    _write_json(directory / "config.json", config)
    _write_json(
        directory / "generation_config.json",
        {
            "bos_token_id": BOS_ID,
            "eos_token_id": EOS_ID,
            "pad_token_id": PAD_ID,
            "do_sample": False,
            "max_new_tokens": REPLY_TOKENS_MAX,
        },
    )
    tokenizer.save(str(directory / "tokenizer.json"))
    _write_json(
        directory / "tokenizer_config.json",
        {
            "add_bos_token": False,
            "add_eos_token": False,
            "bos_token": _added_token(BOS),
            "eos_token": _added_token(EOS),
            "pad_token": _added_token(PAD),
            "unk_token": None,
            "clean_up_tokenization_spaces": False,
            "legacy": True,
            "model_max_length": model.CONFIG["max_position_embeddings"],
            "tokenizer_class": "PreTrainedTokenizerFast",
            "chat_template": CHAT_TEMPLATE,
        },
    )
    return (directory / "model.safetensors").stat().st_size
