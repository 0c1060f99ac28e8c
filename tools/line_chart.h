#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

namespace bullpen {

struct ChartSeries {
  std::string name;
  std::vector<std::pair<double, double>> points;  // x, y
};

struct ChartLabels {
  std::string title;
  std::string x;
  std::string y;
};

// A line chart as one SVG file, readable without scripts or fonts of its own.
// The y axis starts at 0 unless a value is below it.
std::string LineChart(const ChartLabels& labels,
                      std::span<const ChartSeries> series);

}  // namespace bullpen
