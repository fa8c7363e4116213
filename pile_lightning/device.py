"""What a device does well, asked of the device and not of its name."""

from functools import cache

import torch

__all__ = ["has_fast_bfloat16"]


@cache
def has_fast_bfloat16(device_type: str) -> bool:
    """Say whether matrix products in bfloat16 are faster than in float32 on this machine.

    A CPU needs bfloat16 matrix units: with AMX they are 6.5 times faster than float32, while a CPU
    with AVX2 alone emulates them 50 times slower.

    Example:
        >>> has_fast_bfloat16("meta")
        False
    """
    if device_type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device_type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
    return False
