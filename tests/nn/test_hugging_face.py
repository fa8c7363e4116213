"""The decoder, configured as Llama, is Hugging Face's Llama."""

import pytest
import torch

from pile_lightning.nn import AttentionConfig, DecoderConfig, FeedForwardConfig, RMSNormConfig


def copy_llama(theirs, ours):
    source = theirs.state_dict()
    target = {
        "embedding.weight": source["model.embed_tokens.weight"],
        "norm.weight": source["model.norm.weight"],
        "head.weight": source["lm_head.weight"],
    }
    for layer in range(len(ours.blocks)):
        old, new = f"model.layers.{layer}.", f"blocks.{layer}."
        for name in "qkv":
            target[f"{new}attention.{name}.weight"] = source[f"{old}self_attn.{name}_proj.weight"]
        target |= {
            new + "attention_norm.weight": source[old + "input_layernorm.weight"],
            new + "attention.out.weight": source[old + "self_attn.o_proj.weight"],
            new + "feed_forward_norm.weight": source[old + "post_attention_layernorm.weight"],
            new + "feed_forward.gate.weight": source[old + "mlp.gate_proj.weight"],
            new + "feed_forward.up.weight": source[old + "mlp.up_proj.weight"],
            new + "feed_forward.down.weight": source[old + "mlp.down_proj.weight"],
        }
    ours.load_state_dict(target)


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@torch.no_grad()
def test_llama(perturb, kv_heads):
    from transformers import LlamaConfig, LlamaForCausalLM

    theirs = perturb(
        LlamaForCausalLM(
            LlamaConfig(
                vocab_size=50,
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=kv_heads,
                max_position_embeddings=64,
                rms_norm_eps=1e-5,
                tie_word_embeddings=False,
            )
        )
    )
    config = DecoderConfig(
        d_model=32,
        num_layers=2,
        attention=AttentionConfig(num_heads=4, num_kv_heads=kv_heads, qk_norm=None),
        feed_forward=FeedForwardConfig(d_ff=48, activation="silu", gated=True),
        norm=RMSNormConfig(eps=1e-5),
        embedding_norm=None,
        tie_embeddings=False,
    )
    ours = config.build(vocab_size=50, max_seq_len=64).eval()
    copy_llama(theirs, ours)
    ids = torch.randint(50, (2, 40))
    torch.testing.assert_close(ours(ids), theirs(ids).logits, rtol=0, atol=1e-5)
