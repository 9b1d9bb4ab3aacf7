"""Checks a checkpoint against transformers' own DeepseekV3ForCausalLM, in float32, dequantized.

    python check_transformers.py models/nano

Fails (exit status 1) if logits differ by more than LOGIT_ERROR_MAX, if a weight is missing, or if
transformers renders a conversation to other text than the one the model was trained on.
"""

import json
import os
import random
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import AutoTokenizer, DeepseekV3ForCausalLM

import model
from data.conversation import sample_conversation
from fp8 import read_dequantized

LOGIT_ERROR_MAX = 1e-4
CONVERSATIONS = 12


def load_reference(directory, config, tensors):
    """transformers' model on the same float32 weights, by way of an unquantized copy."""
    with tempfile.TemporaryDirectory() as copy:
        save_file(tensors, Path(copy) / "model.safetensors", metadata={"format": "pt"})
        (Path(copy) / "config.json").write_text(json.dumps(config), encoding="utf-8")
        reference, info = DeepseekV3ForCausalLM.from_pretrained(
            copy, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
        )
    # transformers has no MTP layer and leaves its weights unread.
    mtp = f"model.layers.{config['num_hidden_layers']}."
    unexpected = [name for name in info["unexpected_keys"] if not name.startswith(mtp)]
    if info["missing_keys"] or unexpected:
        sys.exit(
            f"{directory}: missing {sorted(info['missing_keys'])}, unexpected {sorted(unexpected)}"
        )
    return reference.eval(), AutoTokenizer.from_pretrained(directory)


@torch.no_grad()
def main():
    """Compares on a dozen conversations, some with system prompts and earlier turns."""
    directory = Path(sys.argv[1])
    config, tensors = read_dequantized(directory)
    reference, tokenizer = load_reference(directory, config, tensors)
    net, parameters = model.Nano(config), model.training_names(tensors, config)
    rng, worst = random.Random(5), 0.0
    for _ in range(CONVERSATIONS):
        conversation = sample_conversation(rng)
        rendered = tokenizer.apply_chat_template(
            conversation.messages(), add_generation_prompt=True, tokenize=False
        )
        if rendered != conversation.prompt():
            sys.exit(f"template renders {rendered!r}, training saw {conversation.prompt()!r}")
        text = rendered + conversation.reply()
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
        documents = torch.zeros_like(ids)
        mask = model.attention_mask(
            documents, documents, config["num_attention_heads"], torch.float32
        )
        ours = F.linear(net.hidden(parameters, ids, mask), parameters["lm_head.weight"])
        theirs = reference(ids).logits
        worst = max(worst, (ours - theirs).abs().max().item())
    largest = theirs.abs().max()
    print(f"largest logit difference to transformers: {worst:.2e} (logits up to {largest:.1f})")
    if not worst <= LOGIT_ERROR_MAX:
        sys.exit(f"more than {LOGIT_ERROR_MAX}")


if __name__ == "__main__":
    main()
