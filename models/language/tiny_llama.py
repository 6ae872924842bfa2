"""A Llama with random weights in Hugging Face's layout, made in a second, for tests of servers.

Every printable character is one token; it has LLaMat's two marks and a chat template. Its texts
mean nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>")
LETTERS = ("\n", *map(chr, range(32, 127)))
CONTEXT = 8192  # tokens, one a character: a plan's prompt has thousands
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_tiny_llama(folder: Path, *, chat: bool = True, seed: int = 5) -> Path:
    """Write the model, of about two million weights, with or without a chat template."""
    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = (*SPECIAL, *LETTERS)
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", 1)])
    roles = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), SPECIAL, strict=False))
    make: Any = PreTrainedTokenizerFast  # untyped, like the model
    whole = make(
        tokenizer_object=tokenizer,
        **roles,
        additional_special_tokens=list(SPECIAL[4:]),
    )
    if chat:
        whole.chat_template = TEMPLATE
    whole.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=256,  # vLLM needs heads of 64 on a CPU
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    build: Any = LlamaForCausalLM
    build(config).save_pretrained(folder)
    return folder


def write_tiny_adapter(folder: Path, base: Path, *, rank: int = 4, seed: int = 6) -> Path:
    """Write a LoRA adapter that changes the output of its base."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    config = LoraConfig(
        r=rank,
        lora_alpha=16 * rank,
        target_modules=["q_proj", "v_proj"],
        init_lora_weights=False,  # random: an adapter of zeros would change nothing
        task_type="CAUSAL_LM",
    )
    model = AutoModelForCausalLM.from_pretrained(base, local_files_only=True)
    get_peft_model(model, config).save_pretrained(str(folder))
    return folder
