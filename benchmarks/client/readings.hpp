// The readings that every system is given: times a second apart, values as real sensors gave them.
// Invariant: what a reading is follows from its series and number, so what is read back can be compared.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace bench {

constexpr std::int64_t FIRST_TIME_NS = 1'750'000'000'000'000'000;
constexpr std::int64_t STEP_NS = 1'000'000'000;

inline std::int64_t time_of(std::uint64_t number) { return FIRST_TIME_NS + static_cast<std::int64_t>(number) * STEP_NS; }

// All values of the files in a directory, one file behind the other.
class Values {
 public:
  explicit Values(const std::string& folder);
  double of(std::uint64_t series, std::uint64_t number) const { return values_[(series * 997 + number) % size_]; }
  // count values from number on, as they lie in memory.
  const double* from(std::uint64_t series, std::uint64_t number, std::size_t count) const;

 private:
  std::vector<double> values_;
  std::uint64_t size_ = 0;
};

// Consecutive readings of one series.
struct Run {
  std::uint64_t series;
  std::uint64_t first;
  std::uint64_t count;
};

std::string series_name(std::uint64_t series);

// A reading that was read back is that which was written.
class Expectation {
 public:
  Expectation(const Values& values, std::uint64_t series, std::uint64_t first) : values_(values), series_(series), next_(first) {}
  // Readings come in order of time.
  void see(std::int64_t time_ns, double value);
  std::uint64_t next() const { return next_; }

 private:
  const Values& values_;
  std::uint64_t series_;
  std::uint64_t next_;
};

}  // namespace bench
