"""Networks in pure torch, their parts, their loss, and generation from them."""

from pile_lightning.nn import masks
from pile_lightning.nn.attention import Attention, AttentionConfig, CrossAttention
from pile_lightning.nn.awaited import (
    await_weights,
    check_weights,
    stop_waiting,
    weights_follow,
    will_follow,
)
from pile_lightning.nn.block import Block
from pile_lightning.nn.cache import KVCache, LayerCache
from pile_lightning.nn.decoder import Decoder, DecoderConfig
from pile_lightning.nn.feed_forward import ACTIVATIONS, FeedForward, FeedForwardConfig
from pile_lightning.nn.flops import attention_flops, linear_flops
from pile_lightning.nn.generation import Completion, complete, generate
from pile_lightning.nn.hugging_face import HuggingFaceConfig, HuggingFaceNetwork
from pile_lightning.nn.inference import Quantization, fast_dtype, optimize_for_inference
from pile_lightning.nn.initialization import InitConfig, InitRule, initialize
from pile_lightning.nn.logit_cap import cap_logits
from pile_lightning.nn.loss import cross_entropy_sum, linear_cross_entropy
from pile_lightning.nn.matches import Matches, MatchesConfig
from pile_lightning.nn.network import (
    Cached,
    CappedHead,
    ChunkedHead,
    Counted,
    NetworkConfig,
    Uniform,
)
from pile_lightning.nn.norms import LayerNorm, LayerNormConfig, NormConfig, RMSNorm, RMSNormConfig
from pile_lightning.nn.pile import Pile, PileConfig
from pile_lightning.nn.positions import (
    LearnedConfig,
    NoPositionsConfig,
    Positions,
    PositionsConfig,
    RopeConfig,
    SinusoidalConfig,
)
from pile_lightning.nn.post_norm import PostNormDecoderLayer, PostNormEncoderLayer
from pile_lightning.nn.sampling import Sampling
from pile_lightning.nn.short_conv import ShortConv, ShortConvConfig
from pile_lightning.nn.shortcuts import Shortcuts, ShortcutsConfig
from pile_lightning.nn.sizes import SizedDecoderConfig
from pile_lightning.nn.stacking import StackedKernels
from pile_lightning.nn.tables import Tables, TablesConfig
from pile_lightning.nn.widening import resized, widened

__all__ = [
    "ACTIVATIONS",
    "Attention",
    "AttentionConfig",
    "Block",
    "Cached",
    "CappedHead",
    "ChunkedHead",
    "Completion",
    "Counted",
    "CrossAttention",
    "Decoder",
    "DecoderConfig",
    "FeedForward",
    "FeedForwardConfig",
    "HuggingFaceConfig",
    "HuggingFaceNetwork",
    "InitConfig",
    "InitRule",
    "KVCache",
    "LayerCache",
    "LayerNorm",
    "LayerNormConfig",
    "LearnedConfig",
    "Matches",
    "MatchesConfig",
    "NetworkConfig",
    "NoPositionsConfig",
    "NormConfig",
    "Pile",
    "PileConfig",
    "Positions",
    "PositionsConfig",
    "PostNormDecoderLayer",
    "PostNormEncoderLayer",
    "Quantization",
    "RMSNorm",
    "RMSNormConfig",
    "RopeConfig",
    "Sampling",
    "ShortConv",
    "ShortConvConfig",
    "Shortcuts",
    "ShortcutsConfig",
    "SinusoidalConfig",
    "SizedDecoderConfig",
    "StackedKernels",
    "Tables",
    "TablesConfig",
    "Uniform",
    "attention_flops",
    "await_weights",
    "cap_logits",
    "check_weights",
    "complete",
    "cross_entropy_sum",
    "fast_dtype",
    "generate",
    "initialize",
    "linear_cross_entropy",
    "linear_flops",
    "masks",
    "optimize_for_inference",
    "resized",
    "stop_waiting",
    "weights_follow",
    "widened",
    "will_follow",
]
