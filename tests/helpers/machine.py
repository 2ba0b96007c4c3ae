"""What the machine that runs the tests can do."""

from __future__ import annotations

from lm_eval_ape.attention.kernels import cpu_flash_is_sound

# The rungs of the ladder that run without CUDA; older releases of PyTorch have a CPU kernel that is refused.
CPU_BACKENDS = ["cpu_flash", "eager"] if cpu_flash_is_sound() else ["eager"]
