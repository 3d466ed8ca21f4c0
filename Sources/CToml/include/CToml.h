// TOML as JSON text, for our own parser.
#pragma once

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#pragma clang assume_nonnull begin

/// Reads a TOML document (1.0) and returns JSON text: `{"value": …, "lines": {"<way>": <line>, …}}`.
///
/// Keys stand in the order of the document, integers are exact. A way is `blockdev[0].file.driver`; its line counts
/// from 1. Dates, times, infinities and NaN have no JSON form and are errors.
/// Returns NULL with `*error` set to `<line>: <what is wrong>` if the text cannot be read. Whatever is returned
/// belongs to the caller: free(3).
char *_Nullable cf_toml_to_json(const char *text, size_t length, char *_Nullable *_Nonnull error);

#pragma clang assume_nonnull end

#ifdef __cplusplus
}
#endif
