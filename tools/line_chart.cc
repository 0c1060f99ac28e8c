#include "tools/line_chart.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace bullpen {
namespace {

constexpr double kWidth = 860;
constexpr double kHeight = 480;
constexpr double kLeft = 70;
constexpr double kRight = 220;  // room for the legend
constexpr double kTop = 40;
constexpr double kBottom = 55;
constexpr int kTicks = 5;
// Told apart by those who see few colours; dashes tell the rest.
constexpr std::array<const char*, 7> kColours = {
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000"};

struct Range {
  double low = 0;
  double high = 1;
  // Widened to ends that a person would choose, kTicks steps apart.
  void Round() {
    const double span = std::max(high - low, 1e-12);
    const double magnitude =
        std::pow(10, std::floor(std::log10(span / kTicks)));
    double step = magnitude;
    for (const double times : {1.0, 2.0, 2.5, 5.0, 10.0}) {
      step = magnitude * times;
      if (std::floor(low / step) * step + kTicks * step >= high) break;
    }
    low = std::floor(low / step) * step;
    high = low + kTicks * step;
  }
};

double X(const Range& range, double x) {
  return kLeft +
         (x - range.low) / (range.high - range.low) * (kWidth - kLeft - kRight);
}

double Y(const Range& range, double y) {
  return kHeight - kBottom -
         (y - range.low) / (range.high - range.low) *
             (kHeight - kTop - kBottom);
}

std::string Escaped(const std::string& text) {
  return absl::StrReplaceAll(
      text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}});
}

std::string Text(double x, double y, const char* anchor,
                 const std::string& text) {
  return absl::StrFormat(
      "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n", x, y,
      anchor, Escaped(text));
}

std::string Axes(const ChartLabels& labels, const Range& x, const Range& y) {
  std::string svg;
  for (int i = 0; i <= kTicks; ++i) {
    const double share = static_cast<double>(i) / kTicks;
    const double at_x = x.low + share * (x.high - x.low);
    const double at_y = y.low + share * (y.high - y.low);
    absl::StrAppendFormat(
        &svg,
        "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" "
        "stroke=\"#ddd\"/>\n",
        kLeft, Y(y, at_y), kWidth - kRight, Y(y, at_y));
    svg += Text(kLeft - 8, Y(y, at_y) + 4, "end", absl::StrFormat("%g", at_y));
    svg += Text(X(x, at_x), kHeight - kBottom + 18, "middle",
                absl::StrFormat("%g", at_x));
  }
  const double middle = (kLeft + kWidth - kRight) / 2;
  svg += Text(middle, 22, "middle", labels.title);
  svg += Text(middle, kHeight - 14, "middle", labels.x);
  absl::StrAppendFormat(&svg,
                        "<text transform=\"translate(18 %.1f) rotate(-90)\" "
                        "text-anchor=\"middle\">%s</text>\n",
                        (kTop + kHeight - kBottom) / 2, Escaped(labels.y));
  return svg;
}

std::string Line(const ChartSeries& series, size_t index, const Range& x,
                 const Range& y) {
  const char* const colour = kColours[index % kColours.size()];
  const std::string dash = index < kColours.size()
                               ? ""
                               : absl::StrFormat(" stroke-dasharray=\"%d 3\"",
                                                 3 * (index / kColours.size()));
  std::string svg = absl::StrFormat(
      "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\"%s points=\"",
      colour, dash);
  for (const auto& [px, py] : series.points) {
    absl::StrAppendFormat(&svg, "%.1f,%.1f ", X(x, px), Y(y, py));
  }
  svg += "\"/>\n";
  for (const auto& [px, py] : series.points) {
    absl::StrAppendFormat(
        &svg, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n",
        X(x, px), Y(y, py), colour);
  }
  const double at = kTop + 8 + 20 * static_cast<double>(index);
  absl::StrAppendFormat(
      &svg,
      "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" "
      "stroke-width=\"2\"%s/>\n",
      kWidth - kRight + 14, at, kWidth - kRight + 40, at, colour, dash);
  return svg + Text(kWidth - kRight + 46, at + 4, "start", series.name);
}

}  // namespace

std::string LineChart(const ChartLabels& labels,
                      std::span<const ChartSeries> series) {
  Range x{.low = INFINITY, .high = -INFINITY};
  Range y{.low = 0, .high = -INFINITY};
  for (const ChartSeries& one : series) {
    for (const auto& [px, py] : one.points) {
      x = {std::min(x.low, px), std::max(x.high, px)};
      y = {std::min(y.low, py), std::max(y.high, py)};
    }
  }
  if (x.low > x.high) x = y = {.low = 0, .high = 1};
  x.Round();
  y.Round();
  std::string svg = absl::StrFormat(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" "
      "font-family=\"sans-serif\" font-size=\"12\">\n"
      "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
      kWidth, kHeight);
  svg += Axes(labels, x, y);
  for (size_t i = 0; i < series.size(); ++i) svg += Line(series[i], i, x, y);
  return svg + "</svg>\n";
}

}  // namespace bullpen
