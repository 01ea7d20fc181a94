// Part of optimize.hpp: tokenizers, which encode and decode text.
#ifndef OPTIMIZE_TOKENIZER_HPP
#define OPTIMIZE_TOKENIZER_HPP

#include "source.hpp"
#include "tensor.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace optimize {

/// Options of Tokenizer::encode; see optimize_encode_options_t.
struct EncodeOptions {
    bool no_special_tokens = false;
    std::uint32_t max_length = 0;
};

/// Options of Tokenizer::decode; see optimize_decode_options_t.
struct DecodeOptions {
    bool keep_special_tokens = false;
};

/// Encoded texts: int64 tensors of shape [number of texts, length of the longest row].
struct Encoded {
    /// Token ids; shorter rows are padded on the right.
    Tensor ids;
    /// Attention mask: 1 for tokens, 0 for padding.
    Tensor attention_mask;
    /// Segment ids of BERT (token_type_ids).
    Tensor type_ids;
};

class Model;
class Package;

/// A tokenizer, which encodes text to token ids and decodes token ids to text. It is immutable.
class Tokenizer : public detail::Handle<optimize_tokenizer_t, optimize_tokenizer_free> {
public:
    /// Loads a tokenizer from tokenizer.json or from the folder that contains it, with the settings of the files next
    /// to it.
    explicit Tokenizer(const std::string &path) {
        const char *c_path = detail::c_text(path, "path");
        detail::attempt([&](auto **error) { return optimize_tokenizer_load(c_path, place(), error); });
    }
    /// Loads a tokenizer from the file `name` of a source, which has the format of tokenizer.json. If it is also named
    /// tokenizer.json, the settings of the files next to it are applied.
    Tokenizer(const Source &source, const std::string &name) {
        const char *c_name = detail::c_text(name, "name");
        detail::attempt(Call{}, source, [&](auto *c_source, auto *, auto **error) {
            return optimize_tokenizer_load_source(c_source, c_name, place(), error);
        });
    }
    /// Returns the token ids of texts, with attention mask and segment ids; throws an Error with
    /// Status::invalid_argument if `texts` is empty.
    Encoded encode(const std::vector<std::string> &texts, const EncodeOptions &options = {}) const {
        auto raw = detail::sized<optimize_encode_options_t>();
        raw.no_special_tokens = options.no_special_tokens;
        raw.max_length = options.max_length;
        const detail::Texts c_texts(texts);
        Encoded made{Tensor(), Tensor(), Tensor()};
        detail::attempt([&](auto **error) {
            return optimize_tokenizer_encode(get(), c_texts.pointers.data(), c_texts.sizes.data(), texts.size(),
                                             &raw, made.ids.place(), made.attention_mask.place(),
                                             made.type_ids.place(), error);
        });
        return made;
    }
    /// Returns the text of token ids. Special tokens are left out unless the options keep them.
    std::string decode(const std::vector<std::int64_t> &ids, const DecodeOptions &options = {}) const {
        auto raw = detail::sized<optimize_decode_options_t>();
        raw.keep_special_tokens = options.keep_special_tokens;
        detail::Buffer text;
        detail::attempt([&](auto **error) {
            return optimize_tokenizer_decode(get(), ids.data(), ids.size(), &raw, text.place(), error);
        });
        return text.text();
    }
    /// Returns the number of tokens in the vocabulary, including added tokens.
    std::size_t vocabulary_size() const noexcept { return optimize_tokenizer_vocabulary_size(get()); }

private:
    friend class Model;
    friend class Package;
    explicit Tokenizer(optimize_tokenizer_t *raw) noexcept : Handle(raw) {}
};

} // namespace optimize

#endif // OPTIMIZE_TOKENIZER_HPP
