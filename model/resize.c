/* Resizes a picture to the network's square as Pillow does, to the bit. transforms.py describes it, and calls it. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define INTERFACE 1 /* raised with each change of a function's parameters; the same in transforms.py */

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#define CHANNELS 4 /* Pillow keeps RGB in four bytes */
#define ROWS 4     /* resized together, so that two vectors hold a pixel of each */
#define LANES (CHANNELS * ROWS)
#define WEIGHT_BITS 22 /* of a fraction */
#define AVX2 __attribute__((target("avx2")))

int pranet_resize_interface(void) { return __builtin_cpu_supports("avx2") ? INTERFACE : 0; }

/* Add up `taps` times LANES bytes, `stride` bytes apart, by weights that are not negative and whose sum is 1. */
AVX2 static inline __m128i weigh(const uint8_t *pieces, size_t stride, const int32_t *weights, int taps) {
    __m256i left = _mm256_set1_epi32(1 << (WEIGHT_BITS - 1)), right = left;
    for (int tap = 0; tap < taps; tap++, pieces += stride) {
        __m256i weight = _mm256_set1_epi32(weights[tap]);
        __m128i piece = _mm_loadu_si128((const __m128i *)pieces);
        left = _mm256_add_epi32(left, _mm256_mullo_epi32(_mm256_cvtepu8_epi32(piece), weight));
        right = _mm256_add_epi32(right, _mm256_mullo_epi32(_mm256_cvtepu8_epi32(_mm_srli_si128(piece, 8)), weight));
    }
    left = _mm256_srli_epi32(left, WEIGHT_BITS);
    right = _mm256_srli_epi32(right, WEIGHT_BITS);
    __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32(left, right), _MM_SHUFFLE(3, 1, 2, 0));
    return _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}

/* Copy the pixels of `count` rows to (width, ROWS, CHANNELS), where they alternate; the last one fills the places. */
static inline void interleave(const uint8_t *rows, int count, size_t stride, uint8_t *together) {
    const uint8_t *from[ROWS];
    for (int row = 0; row < ROWS; row++) from[row] = rows + (row < count ? row : count - 1) * stride;
    for (size_t at = 0; at < stride; at += CHANNELS, together += LANES)
        for (int row = 0; row < ROWS; row++) memcpy(together + row * CHANNELS, from[row] + at, CHANNELS);
}

/* Undo it. */
static inline void separate(const uint8_t *together, int count, size_t stride, uint8_t *rows) {
    for (int row = 0; row < count; row++)
        for (size_t at = 0; at < stride; at += CHANNELS)
            memcpy(rows + row * stride + at, together + at * ROWS + row * CHANNELS, CHANNELS);
}

/*
 * Resize the rows of `pixels`, (count, width, 4), to `resized`, (count, side, 4).
 *
 * The output column i is the weighted sum of the columns from starts[i] on, by weights[i], (side, taps).
 * `scratch` has room for (width + side) * 16 bytes.
 */
AVX2 void pranet_resize_rows(const uint8_t *pixels, int count, int width, const int32_t *starts, const int32_t *weights,
                             int taps, int side, uint8_t *scratch, uint8_t *resized) {
    size_t stride = (size_t)width * CHANNELS, new_stride = (size_t)side * CHANNELS;
    uint8_t *narrow = scratch + (size_t)width * LANES;
    for (int row = 0; row < count; row += ROWS) {
        int some = count - row < ROWS ? count - row : ROWS;
        interleave(pixels + row * stride, some, stride, scratch);
        for (int i = 0; i < side; i++) {
            const uint8_t *from = scratch + (size_t)starts[i] * LANES;
            __m128i column = weigh(from, LANES, weights + (size_t)i * taps, taps);
            _mm_storeu_si128((__m128i *)(narrow + (size_t)i * LANES), column);
        }
        separate(narrow, some, new_stride, resized + row * new_stride);
    }
}

/*
 * Make `count` rows of `planes`, (3, side, side), out of rows of `pixels`, (-, side, 4), whose first is starts[0].
 *
 * The row i is the weighted sum of the rows from starts[i] on, by weights[i], (count, taps). The side is a multiple of
 * four, and `planes` points to the first row to make in the first plane.
 */
AVX2 void pranet_resize_columns(const uint8_t *pixels, const int32_t *starts, const int32_t *weights, int taps,
                                int side, int count, uint8_t *planes) {
    size_t stride = (size_t)side * CHANNELS, plane = (size_t)side * side;
    __m128i by_channel = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    for (int i = 0; i < count; i++, planes += side)
        for (int x = 0; x < side; x += 4) {
            const uint8_t *from = pixels + (starts[i] - starts[0]) * stride + (size_t)x * CHANNELS;
            __m128i rgbx = weigh(from, stride, weights + (size_t)i * taps, taps);
            __m128i planar = _mm_shuffle_epi8(rgbx, by_channel);
            for (int channel = 0; channel < 3; channel++, planar = _mm_srli_si128(planar, 4)) {
                int32_t four = _mm_cvtsi128_si32(planar);
                memcpy(planes + channel * plane + x, &four, 4);
            }
        }
}

#else

int pranet_resize_interface(void) { return 0; } /* transforms.py calls nothing else then */

#endif
