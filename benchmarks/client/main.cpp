// The load client: puts a load on a system, reads back what was acknowledged, prints one line of JSON.
//   benchmark-client write --system raftberry --endpoint HOST:PORT ... [options]
#include <cstdio>
#include <cstdlib>
#include <iostream>

#include "echo.hpp"
#include "options.hpp"
#include "workloads.hpp"

int main(int count, char** texts) {
  try {
    const auto options = bench::parse(count, texts);
    bench::Loop loop;
    if (options.workload == "echo") {
      bench::serve_echo(loop, options.setting.endpoints.at(0));
      return 0;
    }
    bench::run(loop, options);
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "benchmark-client: " << error.what() << "\n";
    return 1;
  }
}
