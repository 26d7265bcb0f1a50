// The command line of the load client.
#pragma once

#include <cstdint>
#include <string>

#include "system.hpp"

namespace bench {

struct Options {
  std::string workload;
  std::string system;
  std::string values;
  Setting setting;
  double seconds = 10;
  // Instead of seconds: this many readings in all.
  std::uint64_t readings = 0;
  std::uint64_t series = 1;
  std::uint64_t first_series = 0;
  // In one message, or one range.
  std::uint64_t batch = 1;
  std::uint64_t series_per_message = 1;
  // For workloads that read: how many readings each series has, and in one window.
  std::uint64_t per_series = 0;
  std::uint64_t window = 60;
  // Says "ready" and "written" and waits for a line each time, so that others can look at their counters.
  bool pause = false;
  bool skip_read_back = false;
};

Options parse(int count, char** texts);

}  // namespace bench
