#include "model/weight_names.h"

namespace headcount {
namespace {

// transformers, models/llama/modeling_llama.py.
constexpr WeightNames kHuggingFace = {
    .embedding = "model.embed_tokens",
    .final_norm = "model.norm",
    .output = "lm_head",
    .layers = "model.layers.",
    .attention_norm = "input_layernorm",
    .query = "self_attn.q_proj",
    .key = "self_attn.k_proj",
    .value = "self_attn.v_proj",
    .query_norm = "self_attn.q_norm",
    .key_norm = "self_attn.k_norm",
    .attention_out = "self_attn.o_proj",
    .ffn_norm = "post_attention_layernorm",
    .gate = "mlp.gate_proj",
    .up = "mlp.up_proj",
    .down = "mlp.down_proj",
    .config = "config.json implies",
};

// llama.cpp, gguf-py/gguf/constants.py, TENSOR_NAMES.
constexpr WeightNames kGguf = {
    .embedding = "token_embd",
    .final_norm = "output_norm",
    .output = "output",
    .layers = "blk.",
    .attention_norm = "attn_norm",
    .query = "attn_q",
    .key = "attn_k",
    .value = "attn_v",
    .query_norm = "attn_q_norm",
    .key_norm = "attn_k_norm",
    .attention_out = "attn_output",
    .ffn_norm = "ffn_norm",
    .gate = "ffn_gate",
    .up = "ffn_up",
    .down = "ffn_down",
    .config = "the keys of the file imply",
};

}  // namespace

const WeightNames& WeightNamesOf(WeightNaming naming) {
  return naming == WeightNaming::kGguf ? kGguf : kHuggingFace;
}

}  // namespace headcount
