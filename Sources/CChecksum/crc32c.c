#include "CChecksum.h"

#include <pthread.h>
#include <stdbool.h>
#include <string.h>

static const uint32_t polynomial = 0x82f63b78u;  // 0x1edc6f41 with its bits reversed

// table[k][b] is the checksum of byte b followed by k zero bytes: eight bytes per step.
static uint32_t table[8][256];

// The instruction has a latency of three cycles and can start one each: three streams side by side keep it busy. The
// checksums of the first two are then moved over the bytes that follow them, by tables for that fixed number of zeros.
enum { long_stream = 4096, short_stream = 256 };
static uint32_t long_shift[4][256], short_shift[4][256];

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool has_instruction;

// The checksum register after one zero byte.
static uint32_t step_zero_byte(uint32_t crc) { return crc >> 8 ^ table[0][crc & 0xff]; }

// The register is linear over GF(2): what `zeros` zero bytes do to each byte of it is enough to know it all.
static void fill_shift(uint32_t shift[4][256], size_t zeros) {
    uint32_t of_bit[32];
    for (int bit = 0; bit < 32; bit++) {
        uint32_t crc = 1u << bit;
        for (size_t i = 0; i < zeros; i++) crc = step_zero_byte(crc);
        of_bit[bit] = crc;
    }
    for (int byte = 0; byte < 4; byte++)
        for (int value = 0; value < 256; value++) {
            uint32_t crc = 0;
            for (int bit = 0; bit < 8; bit++)
                if (value >> bit & 1) crc ^= of_bit[byte * 8 + bit];
            shift[byte][value] = crc;
        }
}

static void initialize(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? polynomial : 0);
        table[0][byte] = crc;
    }
    for (int k = 1; k < 8; k++)
        for (int byte = 0; byte < 256; byte++) table[k][byte] = step_zero_byte(table[k - 1][byte]);
    fill_shift(long_shift, long_stream);
    fill_shift(short_shift, short_stream);
#if defined(__x86_64__)
    __builtin_cpu_init();
    has_instruction = __builtin_cpu_supports("sse4.2");
#endif
}

static uint64_t load(const unsigned char *bytes) {
    uint64_t value;
    memcpy(&value, bytes, 8);
    return value;
}

static uint32_t portable(uint32_t crc, const unsigned char *bytes, size_t n) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    for (; n >= 8; n -= 8, bytes += 8) {
        uint64_t word = load(bytes) ^ crc;
        crc = table[7][word & 0xff] ^ table[6][word >> 8 & 0xff] ^ table[5][word >> 16 & 0xff] ^
              table[4][word >> 24 & 0xff] ^ table[3][word >> 32 & 0xff] ^ table[2][word >> 40 & 0xff] ^
              table[1][word >> 48 & 0xff] ^ table[0][word >> 56];
    }
#endif
    for (; n > 0; n--) crc = crc >> 8 ^ table[0][(crc ^ *bytes++) & 0xff];
    return crc;
}

#if defined(__x86_64__)
static uint32_t shift_over(uint32_t shift[4][256], uint32_t crc) {
    return shift[0][crc & 0xff] ^ shift[1][crc >> 8 & 0xff] ^ shift[2][crc >> 16 & 0xff] ^ shift[3][crc >> 24];
}

__attribute__((target("sse4.2"))) static uint32_t three_streams(
    uint32_t crc, const unsigned char *bytes, size_t length, uint32_t shift[4][256]) {
    uint64_t a = crc, b = 0, c = 0;
    for (size_t i = 0; i < length; i += 8) {
        a = __builtin_ia32_crc32di(a, load(bytes + i));
        b = __builtin_ia32_crc32di(b, load(bytes + length + i));
        c = __builtin_ia32_crc32di(c, load(bytes + 2 * length + i));
    }
    uint32_t both = shift_over(shift, (uint32_t)a) ^ (uint32_t)b;
    return shift_over(shift, both) ^ (uint32_t)c;
}

__attribute__((target("sse4.2"))) static uint32_t by_instruction(uint32_t crc, const unsigned char *bytes, size_t n) {
    for (; n >= 3 * long_stream; n -= 3 * long_stream, bytes += 3 * long_stream)
        crc = three_streams(crc, bytes, long_stream, long_shift);
    for (; n >= 3 * short_stream; n -= 3 * short_stream, bytes += 3 * short_stream)
        crc = three_streams(crc, bytes, short_stream, short_shift);
    for (; n >= 8; n -= 8, bytes += 8) crc = (uint32_t)__builtin_ia32_crc32di(crc, load(bytes));
    for (; n > 0; n--) crc = __builtin_ia32_crc32qi(crc, *bytes++);
    return crc;
}
#endif

uint32_t cf_crc32c(uint32_t crc, const void *data, size_t n) {
    if (n == 0) return crc;
    pthread_once(&once, initialize);
#if defined(__x86_64__)
    if (has_instruction) return ~by_instruction(~crc, data, n);
#endif
    return ~portable(~crc, data, n);
}

uint32_t cf_crc32c_portable(uint32_t crc, const void *data, size_t n) {
    if (n == 0) return crc;
    pthread_once(&once, initialize);
    return ~portable(~crc, data, n);
}
