#include "CToml.h"

#define TOML_EXCEPTIONS 0
#define TOML_HEADER_ONLY 1
#include <toml++/toml.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace {

// Two JSON texts that grow side by side: the value, and where its parts stand in the document.
class Conversion {
  public:
    std::string value, lines, error;

    bool convert(const toml::node &node, const std::string &way) {
        note(way, node);
        switch (node.type()) {
        case toml::node_type::table: return convert_table(*node.as_table(), way);
        case toml::node_type::array: return convert_array(*node.as_array(), way);
        case toml::node_type::string: append_string(value, node.as_string()->get()); return true;
        case toml::node_type::boolean: value += node.as_boolean()->get() ? "true" : "false"; return true;
        case toml::node_type::integer: value += std::to_string(node.as_integer()->get()); return true;
        case toml::node_type::floating_point: return convert_number(node, way);
        default: return fail(node, "'" + way + "' is a date or time, which nothing here takes: write it as a string");
        }
    }

  private:
    bool convert_table(const toml::table &table, const std::string &way) {
        // The library keeps keys sorted by name; the document's order is that of their places.
        struct Entry {
            const toml::key *key;
            const toml::node *node;
        };
        std::vector<Entry> entries;
        for (auto it = table.cbegin(); it != table.cend(); ++it) entries.push_back({&it->first, &it->second});
        std::stable_sort(entries.begin(), entries.end(), [](const Entry &a, const Entry &b) {
            return a.key->source().begin < b.key->source().begin;
        });
        value += '{';
        bool is_first = true;
        for (const Entry &entry : entries) {
            if (!is_first) value += ',';
            is_first = false;
            append_string(value, entry.key->str());
            value += ':';
            std::string inner(entry.key->str());
            if (!convert(*entry.node, way.empty() ? inner : way + "." + inner)) return false;
        }
        value += '}';
        return true;
    }

    bool convert_array(const toml::array &array, const std::string &way) {
        value += '[';
        for (size_t i = 0; i < array.size(); i++) {
            if (i > 0) value += ',';
            if (!convert(array[i], way + "[" + std::to_string(i) + "]")) return false;
        }
        value += ']';
        return true;
    }

    bool convert_number(const toml::node &node, const std::string &way) {
        double number = node.as_floating_point()->get();
        if (!std::isfinite(number)) return fail(node, "'" + way + "' is not a finite number");
        char text[40];
        std::snprintf(text, sizeof text, "%.17g", number);
        value += text;
        // Without a point JSON would have an integer.
        if (!std::strpbrk(text, ".e")) value += ".0";
        return true;
    }

    bool fail(const toml::node &node, const std::string &words) {
        error = std::to_string(node.source().begin.line) + ": " + words;
        return false;
    }

    void note(const std::string &way, const toml::node &node) {
        if (!lines.empty()) lines += ',';
        append_string(lines, way);
        lines += ':' + std::to_string(node.source().begin.line);
    }

    static void append_string(std::string &text, std::string_view string) {
        text += '"';
        for (unsigned char byte : string) {
            if (byte == '"' || byte == '\\') {
                text += '\\';
                text += (char)byte;
            } else if (byte < 0x20) {
                char escape[8];
                std::snprintf(escape, sizeof escape, "\\u%04x", byte);
                text += escape;
            } else {
                text += (char)byte;
            }
        }
        text += '"';
    }
};

}  // namespace

extern "C" char *cf_toml_to_json(const char *text, size_t length, char **error) {
    *error = nullptr;
    toml::parse_result result = toml::parse(std::string_view(text, length));
    if (!result) {
        std::string words = std::to_string(result.error().source().begin.line) + ": ";
        words += result.error().description();
        *error = strdup(words.c_str());
        return nullptr;
    }
    Conversion conversion;
    if (!conversion.convert(result.table(), "")) {
        *error = strdup(conversion.error.c_str());
        return nullptr;
    }
    std::string whole = "{\"value\":" + conversion.value + ",\"lines\":{" + conversion.lines + "}}";
    return strdup(whole.c_str());
}
