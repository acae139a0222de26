"""Which precision trains: bfloat16 where the processor computes in it, float32 else."""

from __future__ import annotations

from pathlib import Path

_CPU_FLAGS = Path("/proc/cpuinfo")
_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16"})


def chosen() -> str:
    """`mixed_bfloat16` on processors with AVX512-BF16 or AMX, else `float32`.

    Elsewhere bfloat16 is emulated, and on a GPU it was not tried.
    """
    import keras

    on_gpu = any(device.startswith(("gpu", "cuda")) for device in keras.distribution.list_devices())
    return "mixed_bfloat16" if not on_gpu and _BFLOAT16 & _flags() else "float32"


def _flags() -> frozenset[str]:
    if not _CPU_FLAGS.exists():
        return frozenset()
    lines = _CPU_FLAGS.read_text().splitlines()
    return frozenset(next((line for line in lines if line.startswith("flags")), "").split())
