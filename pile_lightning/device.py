"""What a device does well, asked of the device and not of its name."""

import ctypes
import platform
from functools import cache

import torch

__all__ = ["has_fast_bfloat16", "keep_freed_memory"]


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


@cache
def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, and take it again; say whether it will.

    The C library gives large blocks back to the system, and asks for them again in the next step:
    each comes back as fresh pages, which cost as much as a pass over them. It is for a process that
    trains on a CPU: what it has held at its peak it holds to its end. Only glibc can be told so.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # the largest block that does not come from the system directly: glibc takes no more than 32 MB
    taken = [mallopt(-3, 2**25), mallopt(-1, 2**31 - 1), mallopt(-2, 2**26)]
    return all(taken)
