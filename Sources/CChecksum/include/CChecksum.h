// Checksums that are too hot for Swift.
#pragma once

#include <stddef.h>
#include <stdint.h>

#pragma clang assume_nonnull begin

/// CRC-32C (Castagnoli, reflected, as in iSCSI, RFC 3720 appendix B.4) of `n` bytes that follow those whose checksum
/// is `crc`; 0 at the start. Uses the processor's instruction where there is one.
uint32_t cf_crc32c(uint32_t crc, const void *_Nullable data, size_t n);

/// The same without that instruction, for tests.
uint32_t cf_crc32c_portable(uint32_t crc, const void *_Nullable data, size_t n);

#pragma clang assume_nonnull end
