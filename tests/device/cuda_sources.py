"""CUDA that only the tests need."""

# One thread that does nothing for so many nanoseconds, by the GPU's clock.
SPIN = r"""
extern "C" __global__ void spin(long long nanoseconds) {
    long long now, start;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(start));
    do asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now)); while (now - start < nanoseconds);
}
"""
