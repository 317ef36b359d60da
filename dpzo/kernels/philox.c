/* What dpzo/kernels/philox.py computes on a CPU around the logarithms and cosines, in the same bits, sooner.

   Every operation here is exact or is rounded once as IEEE 754 prescribes, so no compiler and no processor can change
   a bit as long as it keeps to that standard; the caller checks that it does. */

#include <stdint.h>

#define LANES 64 /* counters taken through the rounds together, so that the compiler uses vectors */

/* The vectors are chosen when the library is loaded: a home folder may serve machines with and without AVX-512. */
#if defined(__x86_64__) && defined(__GLIBC__) && __GNUC__ >= 12 && !defined(__clang__)
#define EACH_PROCESSOR __attribute__((target_clones("arch=x86-64-v4", "default")))
#else
#define EACH_PROCESSOR
#endif

/* 24 bits of a word: what a float holds. The half keeps the logarithm's argument above zero. */
static inline float uniform(uint32_t word)
{
    return ((float)(int32_t)(word >> 8) + 0.5f) * 0x1p-24f;
}

static inline float angle(uint32_t word)
{
    return (float)(int32_t)(word >> 8) * (float)(6.283185307179586 * 0x1p-24);
}

/* Philox4x32-10 at counters first .. first + count - 1 under each of ``keys`` keys. Words 0 and 2 become uniform numbers,
   words 1 and 3 angles: out[2][2][keys][count], the uniform numbers first. */
EACH_PROCESSOR
void box_muller_arguments(uint64_t first, int64_t count, const uint64_t *key, int64_t keys, uint64_t stream, float *out)
{
    for (int64_t k = 0; k < keys; k++) {
        float *restrict u0 = out + k * count, *restrict u1 = u0 + keys * count;
        float *restrict a0 = u1 + keys * count, *restrict a1 = a0 + keys * count;
        for (int64_t start = 0; start < count; start += LANES) {
            int64_t here = count - start < LANES ? count - start : LANES;
            uint32_t c0[LANES], c1[LANES], c2[LANES], c3[LANES];
            uint32_t k0 = (uint32_t)key[k], k1 = (uint32_t)(key[k] >> 32);
            for (int j = 0; j < LANES; j++) {
                uint64_t counter = first + (uint64_t)(start + j);
                c0[j] = (uint32_t)counter;
                c1[j] = (uint32_t)(counter >> 32);
                c2[j] = (uint32_t)stream;
                c3[j] = (uint32_t)(stream >> 32);
            }
            for (int round = 0; round < 10; round++) {
                for (int j = 0; j < LANES; j++) {
                    uint64_t p0 = (uint64_t)c0[j] * 0xD2511F53u, p1 = (uint64_t)c2[j] * 0xCD9E8D57u;
                    c0[j] = (uint32_t)(p1 >> 32) ^ c1[j] ^ k0;
                    c2[j] = (uint32_t)(p0 >> 32) ^ c3[j] ^ k1;
                    c1[j] = (uint32_t)p1;
                    c3[j] = (uint32_t)p0;
                }
                k0 += 0x9E3779B9u;
                k1 += 0xBB67AE85u;
            }
            for (int64_t j = 0; j < here; j++) {
                u0[start + j] = uniform(c0[j]);
                a0[start + j] = angle(c1[j]);
                u1[start + j] = uniform(c2[j]);
                a1[start + j] = angle(c3[j]);
            }
        }
    }
}

/* The two pairs of planes, each of n radii, cosines and sines, become z[n][4], four normal numbers a counter. */
EACH_PROCESSOR
void interleave(int64_t n, const float *restrict radius, const float *restrict cosine, const float *restrict sine,
                float *restrict z)
{
    for (int64_t i = 0; i < n; i++) {
        z[4 * i] = radius[i] * cosine[i];
        z[4 * i + 1] = radius[i] * sine[i];
        z[4 * i + 2] = radius[n + i] * cosine[n + i];
        z[4 * i + 3] = radius[n + i] * sine[n + i];
    }
}
