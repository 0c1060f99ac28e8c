#include "engine/model/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "engine/model/byte_alphabet.h"
#include "engine/model/unicode_version.h"
#include "engine/model/utf8.h"
#include "engine/model/white_space.h"

namespace bullpen {
namespace {

// Below U+0300 every character is in form C and nothing combines: text without
// a lead byte that reaches it is done.
bool IsTriviallyComposed(std::string_view text) {
  return std::none_of(text.begin(), text.end(), [](char c) {
    return static_cast<unsigned char>(c) >= 0xCC;
  });
}

void AppendDecomposition(int32_t point, bool compatible,
                         std::vector<int32_t>& out) {
  // The longest decomposition (U+FDFA) has 18 characters.
  int32_t buffer[32];
  const auto options =
      static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | UTF8PROC_STABLE |
                                     (compatible ? UTF8PROC_COMPAT : 0));
  int boundary = 0;
  const utf8proc_ssize_t count =
      utf8proc_decompose_char(point, buffer, 32, options, &boundary);
  if (count <= 0 || count > 32) {
    out.push_back(point);
  } else {
    out.insert(out.end(), buffer, buffer + count);
  }
}

// Runs of marks go by combining class, stably. utf8proc's own ordering is an
// insertion sort, which a long run of marks makes quadratic.
void OrderMarks(std::vector<int32_t>& points) {
  std::vector<std::pair<int, int32_t>> run;
  for (size_t begin = 0; begin < points.size();) {
    run.clear();
    size_t end = begin;
    for (; end < points.size(); ++end) {
      const int mark_class =
          utf8proc_get_property(points[end])->combining_class;
      if (mark_class == 0) break;
      run.emplace_back(mark_class, points[end]);
    }
    if (run.size() > 1) {
      std::stable_sort(
          run.begin(), run.end(),
          [](const auto& a, const auto& b) { return a.first < b.first; });
      for (size_t i = 0; i < run.size(); ++i) points[begin + i] = run[i].second;
    }
    begin = end + 1;
  }
}

// Normalises what has gathered in `points` and appends it to `out`.
void Flush(std::vector<int32_t>& points, bool compose, std::string& out) {
  OrderMarks(points);
  if (compose) {
    const utf8proc_ssize_t count = utf8proc_normalize_utf32(
        points.data(), static_cast<utf8proc_ssize_t>(points.size()),
        static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
    if (count >= 0) points.resize(static_cast<size_t>(count));
  }
  for (int32_t point : points) AppendUtf8(point, out);
  points.clear();
}

std::string ToForm(std::string_view text, Normalizer::Form form) {
  const bool compatible =
      form == Normalizer::Form::kNfkc || form == Normalizer::Form::kNfkd;
  const bool compose =
      form == Normalizer::Form::kNfc || form == Normalizer::Form::kNfkc;
  std::vector<int32_t> points;
  points.reserve(text.size());
  std::string out;
  out.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) {
    const Utf8Step step = NextUtf8(text, pos);
    pos += step.bytes;
    if (IsInertInNormalForms(step.code_point)) {
      Flush(points, compose, out);
      AppendUtf8(step.code_point, out);
    } else {
      AppendDecomposition(step.code_point, compatible, points);
    }
  }
  Flush(points, compose, out);
  return out;
}

// One function for each kind of step: whether the text (not empty) changes,
// and to what.
bool Change(const Normalizer::Form& form, std::string_view text,
            std::string& out) {
  if (form == Normalizer::Form::kNfc && IsTriviallyComposed(text)) return false;
  out = ToForm(text, form);
  return true;
}

bool Change(const CharsMap& map, std::string_view text, std::string& out) {
  out = map.Apply(text);
  return true;
}

bool Change(const Normalizer::Replace& replace, std::string_view text,
            std::string& out) {
  size_t hit = text.find(replace.pattern);
  if (hit == std::string_view::npos) return false;
  for (size_t pos = 0;;) {
    out.append(text.substr(pos, hit - pos));
    if (hit == std::string_view::npos) return true;
    out.append(replace.content);
    pos = hit + replace.pattern.size();
    hit = text.find(replace.pattern, pos);
  }
}

bool Change(const Normalizer::ReplaceMatches& replace, std::string_view text,
            std::string& out) {
  out = replace.pattern.Replace(text, replace.content);
  return true;
}

bool Change(const Normalizer::Prepend& prepend, std::string_view text,
            std::string& out) {
  out.append(prepend.text).append(text);
  return true;
}

bool Change(const Normalizer::Strip& strip, std::string_view text,
            std::string& out) {
  size_t begin = 0;
  size_t end = text.size();
  if (strip.left) begin = WhiteSpaceAfter(text, 0);
  if (strip.right) end = WhiteSpaceBefore(text, end, begin);
  out = text.substr(begin, end - begin);
  return true;
}

bool Change(const Normalizer::TrimEnd& trim, std::string_view text,
            std::string& out) {
  while (text.ends_with(trim.text)) text.remove_suffix(trim.text.size());
  out = text;
  return true;
}

bool Change(const Normalizer::SingleSpaces&, std::string_view text,
            std::string& out) {
  bool pending = false;
  for (char c : text) {
    if (c == ' ') {
      pending = !out.empty();
      continue;
    }
    if (std::exchange(pending, false)) out.push_back(' ');
    out.push_back(c);
  }
  return true;
}

bool Change(const Normalizer::Lowercase&, std::string_view text,
            std::string& out) {
  for (size_t pos = 0; pos < text.size();) {
    const Utf8Step step = NextUtf8(text, pos);
    pos += step.bytes;
    AppendUtf8(utf8proc_tolower(step.code_point), out);
    // The one character whose lower case is two.
    if (step.code_point == 0x130) out.replace(out.size() - 1, 1, "i\u0307");
  }
  return true;
}

bool Change(const Normalizer::StripAccents&, std::string_view text,
            std::string& out) {
  for (size_t pos = 0; pos < text.size();) {
    const Utf8Step step = NextUtf8(text, pos);
    if (!IsMark(step.code_point)) out.append(text.substr(pos, step.bytes));
    pos += step.bytes;
  }
  return true;
}

bool Change(const Normalizer::SpellBytes&, std::string_view text,
            std::string& out) {
  out = ByteAlphabet::Get().Spelling(text);
  return true;
}

}  // namespace

void Normalizer::Add(Step step) { steps_.push_back(std::move(step)); }

std::string_view Normalizer::Apply(std::string_view text,
                                   std::string& storage) const {
  for (const Step& step : steps_) {
    if (text.empty()) break;
    std::string changed;
    const bool changes = std::visit(
        [&](const auto& kind) { return Change(kind, text, changed); }, step);
    if (!changes) continue;
    storage = std::move(changed);
    text = storage;
  }
  return text;
}

size_t Normalizer::BytesOfFirst(std::string_view text) const {
  std::string storage;
  return Apply(text.substr(0, NextUtf8(text, 0).bytes), storage).size();
}

}  // namespace bullpen
