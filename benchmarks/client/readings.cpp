#include "readings.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <stdexcept>

namespace bench {
namespace {

// No message holds more readings of one series.
constexpr std::size_t RUN_MAX = 100'000;

}  // namespace

Values::Values(const std::string& folder) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().extension() == ".csv") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  for (const auto& file : files) {
    std::ifstream lines(file);
    std::string line;
    std::getline(lines, line);
    while (std::getline(lines, line)) values_.push_back(std::stod(line.substr(line.find(',') + 1)));
  }
  if (values_.empty()) throw std::runtime_error("no readings in " + folder);
  size_ = values_.size();
  // What wraps around lies in one piece too.
  for (std::size_t i = 0; i < RUN_MAX; ++i) values_.push_back(values_[i % size_]);
}

const double* Values::from(std::uint64_t series, std::uint64_t number, std::size_t count) const {
  if (count > RUN_MAX) throw std::invalid_argument("a run of more than 100,000 readings");
  return &values_[(series * 997 + number) % size_];
}

std::string series_name(std::uint64_t series) { return "sensor-" + std::to_string(series); }

void Expectation::see(std::int64_t time_ns, double value) {
  if (time_ns != time_of(next_) || value != values_.of(series_, next_))
    throw std::runtime_error(series_name(series_) + ": reading " + std::to_string(next_) + " was written as (" +
                             std::to_string(time_of(next_)) + ", " + std::to_string(values_.of(series_, next_)) + ") and read back as (" +
                             std::to_string(time_ns) + ", " + std::to_string(value) + ")");
  ++next_;
}

}  // namespace bench
