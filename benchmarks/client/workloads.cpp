#include "workloads.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <iostream>
#include <map>
#include <optional>
#include <sstream>

namespace bench {
namespace {

const std::map<std::string, MakeSystem> SYSTEMS{{"raftberry", make_raftberry}, {"echo", make_raftberry}, {"etcd", make_etcd},
                                              {"nats", make_nats},           {"influxdb", make_influxdb}, {"redis", make_redis}};

double cpu_s() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) { return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6; };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// One flat JSON object.
class Figures {
 public:
  Figures& add(const std::string& name, double value) {
    text_ << (is_empty_ ? "{" : ", ") << '"' << name << "\": " << value;
    is_empty_ = false;
    return *this;
  }
  void print() { std::cout << text_.str() << "}" << std::endl; }

 private:
  std::ostringstream text_ = [] {
    std::ostringstream text;
    text.precision(12);
    return text;
  }();
  bool is_empty_ = true;
};

// How long and with how much CPU of ours; the client is the limit when it has hardly any time left.
class Watch {
 public:
  void stop() { elapsed_ns_ = now_ns() - begin_ns_, cpu_s_ = cpu_s() - cpu_begin_s_; }
  double seconds() const { return static_cast<double>(elapsed_ns_) / 1e9; }
  std::int64_t begin_ns() const { return begin_ns_; }
  void report(Figures& figures) const {
    figures.add("seconds", seconds()).add("client_cpu_s", cpu_s_).add("client_cpu_share", cpu_s_ / seconds());
  }

 private:
  std::int64_t begin_ns_ = now_ns();
  double cpu_begin_s_ = cpu_s();
  std::int64_t elapsed_ns_ = 0;
  double cpu_s_ = 0;
};

void report_latencies(Figures& figures, std::vector<std::int64_t>& latencies) {
  if (latencies.empty()) return;
  std::sort(latencies.begin(), latencies.end());
  const auto at = [&](double share) { return static_cast<double>(latencies[static_cast<std::size_t>(share * static_cast<double>(latencies.size() - 1))]) / 1e6; };
  figures.add("p50_ms", at(0.5)).add("p90_ms", at(0.9)).add("p99_ms", at(0.99)).add("max_ms", at(1));
}

void pause(const Options& options, const std::string& event) {
  if (!options.pause) return;
  std::cout << event << std::endl;
  std::string line;
  std::getline(std::cin, line);
}

std::unique_ptr<System> make_system(Loop& loop, const Options& options, const Values& values) {
  const auto found = SYSTEMS.find(options.system);
  if (found == SYSTEMS.end()) throw std::invalid_argument("no system named " + options.system);
  return found->second(loop, options.setting, values);
}

Task<> each_client(Loop& loop, const Setting& setting, const std::function<Task<>(int)>& start) {
  std::vector<Task<>> tasks;
  for (int client = 0; client < setting.clients; ++client)
    for (int i = 0; i < setting.in_flight; ++i) tasks.push_back(start(client));
  co_await loop.all(std::move(tasks));
}

// Everybody once, so that connections are open; then on until is_over, against the clock.
Task<> measure(Loop& loop, const Options& options, std::optional<Watch>& watch, const std::function<Task<>(int)>& one,
               const std::function<void()>& begin, const std::function<bool(std::int64_t)>& is_over) {
  co_await each_client(loop, options.setting, one);
  pause(options, "ready");
  begin();
  watch.emplace();
  const auto end_ns = watch->begin_ns() + static_cast<std::int64_t>(options.seconds * 1e9);
  const std::function<Task<>(int)> on = [&](int client) -> Task<> {
    while (!is_over(end_ns)) co_await one(client);
  };
  co_await each_client(loop, options.setting, on);
  watch->stop();
}

class Writing {
 public:
  Writing(Loop& loop, const Options& options)
      : loop_(loop), options_(options), values_(options.values), sent_(options.series, 0), turns_(options.setting.clients, 0),
        system_(make_system(loop, options, values_)) {}

  Task<> run() {
    std::uint64_t early = 0;
    const auto begin = [&] { early = sum_sent_, latencies_.clear(); };
    const auto is_over = [this](std::int64_t end_ns) { return options_.readings ? sum_sent_ >= options_.readings : now_ns() >= end_ns; };
    std::optional<Watch> watch;
    co_await measure(loop_, options_, watch, [this](int client) { return write_one(client); }, begin, is_over);
    const auto written = sum_sent_ - early;
    pause(options_, "written");
    co_await system_->finish();
    if (options_.system != "echo" && !options_.skip_read_back)
      for (std::uint64_t i = 0; i < options_.series; ++i)
        if (sent_[i] > 0) co_await system_->verify(options_.first_series + i, sent_[i]);
    Figures figures;
    figures.add("readings", static_cast<double>(written)).add("per_second", static_cast<double>(written) / watch->seconds());
    report_latencies(figures, latencies_);
    watch->report(figures);
    figures.print();
  }

 private:
  Task<> write_one(int client) {
    std::vector<Run> runs(options_.series_per_message);
    const auto each = options_.batch / options_.series_per_message;
    for (auto& run : runs) {
      // A client that sends one series a message keeps to its own ones.
      const auto own = static_cast<std::uint64_t>(client) + static_cast<std::uint64_t>(options_.setting.clients) * turns_[client]++;
      const auto series = own % options_.series;
      run = {options_.first_series + series, sent_[series], each};
      sent_[series] += each;
      sum_sent_ += each;
    }
    const auto begin = now_ns();
    co_await system_->write(client, runs, 0);
    latencies_.push_back(now_ns() - begin);
  }

  Loop& loop_;
  const Options& options_;
  Values values_;
  std::vector<std::uint64_t> sent_;
  std::uint64_t sum_sent_ = 0;
  std::vector<std::uint64_t> turns_;
  std::unique_ptr<System> system_;
  std::vector<std::int64_t> latencies_;
};

// Calls that read what a run of "write" has written before: each series has so many readings.
class Reading {
 public:
  Reading(Loop& loop, const Options& options)
      : loop_(loop), options_(options), values_(options.values), system_(make_system(loop, options, values_)) {}

  Task<> run() {
    const auto begin = [this] { latencies_.clear(); };
    const auto is_over = [](std::int64_t end_ns) { return now_ns() >= end_ns; };
    std::optional<Watch> watch;
    co_await measure(loop_, options_, watch, [this](int client) { return read_one(client); }, begin, is_over);
    const auto calls = static_cast<double>(latencies_.size());
    pause(options_, "read");
    Figures figures;
    figures.add("calls", calls).add("per_second", calls / watch->seconds());
    report_latencies(figures, latencies_);
    watch->report(figures);
    figures.print();
  }

 private:
  Task<> read_one(int client) {
    // Spread over series and places, the same for every system.
    const auto number = done_++;
    const auto series = options_.first_series + number % options_.series;
    const auto count = options_.batch;
    const auto first = count < options_.per_series ? number * 7'919 % (options_.per_series - count) : 0;
    const auto begin = now_ns();
    if (options_.workload == "latest") co_await system_->latest(client, series, options_.per_series);
    if (options_.workload == "range") co_await system_->range(client, {series, first, count});
    if (options_.workload == "aggregate") {
      // Windows are aligned to the epoch, as the first time is to theirs.
      const auto aligned = first / options_.window * options_.window;
      const auto windows = co_await system_->aggregate(client, {series, aligned, count}, options_.window);
      if (windows < count / options_.window || windows > count / options_.window + 2)
        throw std::runtime_error(std::to_string(windows) + " windows of " + std::to_string(count / options_.window));
    }
    latencies_.push_back(now_ns() - begin);
  }

  Loop& loop_;
  const Options& options_;
  Values values_;
  std::unique_ptr<System> system_;
  std::vector<std::int64_t> latencies_;
  std::uint64_t done_ = 0;
};

// One writer, one reading at a time; how long until the last watcher has seen it.
class Watching {
 public:
  Watching(Loop& loop, const Options& options)
      : loop_(loop), options_(options), values_(options.values), system_(make_system(loop, options, values_)), all_seen_(loop, 0),
        seen_(EARLY + options.readings, 0) {}

  Task<> run() {
    std::vector<Task<>> watchers;
    for (int watcher = 0; watcher < options_.setting.clients; ++watcher)
      watchers.push_back(system_->watch(watcher, options_.first_series, [this](std::uint64_t number) { on_seen(number); }));
    auto watching = loop_.all(std::move(watchers));
    run_apart(watching);
    co_await begin_all();
    pause(options_, "ready");
    Watch watch;
    for (std::uint64_t i = 0; i < options_.readings; ++i) {
      const auto begin = now_ns();
      awaited_ = number_;
      co_await write(number_);
      co_await all_seen_.acquire();
      latencies_.push_back(last_ns_ - begin);
      ++number_;
      co_await loop_.sleep_until(now_ns() + BETWEEN_NS);
    }
    watch.stop();
    pause(options_, "watched");
    Figures figures;
    figures.add("events", static_cast<double>(latencies_.size()));
    report_latencies(figures, latencies_);
    watch.report(figures);
    figures.print();
  }

 private:
  static constexpr std::uint64_t EARLY = 200;
  static constexpr std::int64_t BETWEEN_NS = 10'000'000;

  struct Apart {
    struct promise_type {
      Apart get_return_object() { return {}; }
      std::suspend_never initial_suspend() noexcept { return {}; }
      std::suspend_never final_suspend() noexcept { return {}; }
      void return_void() {}
      void unhandled_exception() { std::terminate(); }
    };
  };
  static Apart run_apart(Task<>& task) {
    try {
      co_await task;
    } catch (const std::exception& error) {
      std::cerr << "benchmark-client: " << error.what() << std::endl;
      std::_Exit(1);
    }
  }

  // Until a reading has reached every watcher: all are there then.
  Task<> begin_all() {
    while (true) {
      if (number_ == EARLY) throw std::runtime_error("watchers did not begin");
      co_await write(number_);
      co_await loop_.sleep_until(now_ns() + 200'000'000);
      if (seen_[number_++] == options_.setting.clients) break;
    }
  }

  Task<> write(std::uint64_t number) {
    const Run run{options_.first_series, number, 1};
    co_await system_->write(0, {&run, 1}, 0);
  }

  void on_seen(std::uint64_t number) {
    if (number >= seen_.size() || ++seen_[number] != options_.setting.clients || number != awaited_) return;
    last_ns_ = now_ns();
    all_seen_.release();
  }

  Loop& loop_;
  const Options& options_;
  Values values_;
  std::unique_ptr<System> system_;
  Semaphore all_seen_;
  std::vector<int> seen_;
  std::uint64_t number_ = 0;
  std::uint64_t awaited_ = ~0ULL;
  std::int64_t last_ns_ = 0;
  std::vector<std::int64_t> latencies_;
};

// One writer that goes on to the next endpoint when a call fails or takes too long; the longest time between two answers.
class Gap {
 public:
  Gap(Loop& loop, const Options& options)
      : loop_(loop), options_(options), values_(options.values), system_(make_system(loop, options, values_)) {}

  Task<> run() {
    while (!co_await try_write()) {
    }
    pause(options_, "ready");
    const auto end_ns = now_ns() + static_cast<std::int64_t>(options_.seconds * 1e9);
    std::int64_t last_ns = now_ns(), longest_ns = 0;
    // The last one is written until it is acknowledged, so that what is read back is exact.
    while (now_ns() < end_ns || has_failed_) {
      if (!co_await try_write()) continue;
      const auto time_ns = now_ns();
      longest_ns = std::max(longest_ns, time_ns - last_ns);
      last_ns = time_ns;
    }
    pause(options_, "written");
    Figures figures;
    figures.add("gap_s", static_cast<double>(longest_ns) / 1e9).add("readings", static_cast<double>(number_));
    figures.add("lost", co_await is_lost() ? 1 : 0).print();
  }

 private:
  static constexpr std::int64_t ATTEMPT_NS = 250'000'000;
  static constexpr std::int64_t PAUSE_NS = 10'000'000;

  Task<bool> try_write() {
    has_failed_ = false;
    try {
      co_await write();
    } catch (const std::runtime_error&) {
      has_failed_ = true;
    }
    if (has_failed_) {
      system_->turn();
      co_await loop_.sleep_until(now_ns() + PAUSE_NS);
    }
    co_return !has_failed_;
  }

  Task<> write() {
    const Run run{options_.first_series, number_, 1};
    co_await system_->write(0, {&run, 1}, now_ns() + ATTEMPT_NS);
    ++number_;
  }

  Task<bool> is_lost() {
    try {
      co_await system_->verify(options_.first_series, number_);
    } catch (const std::runtime_error& error) {
      std::cerr << "benchmark-client: not read back: " << error.what() << std::endl;
      co_return true;
    }
    co_return false;
  }

  Loop& loop_;
  const Options& options_;
  Values values_;
  std::unique_ptr<System> system_;
  std::uint64_t number_ = 0;
  bool has_failed_ = false;
};

template <class Workload>
void run_one(Loop& loop, const Options& options) {
  Workload workload(loop, options);
  loop.run(workload.run());
  // Watches have no end of their own.
  std::cout.flush();
  std::_Exit(0);
}

}  // namespace

void run(Loop& loop, const Options& options) {
  const std::map<std::string, void (*)(Loop&, const Options&)> workloads{
      {"write", run_one<Writing>}, {"latest", run_one<Reading>}, {"range", run_one<Reading>},
      {"aggregate", run_one<Reading>}, {"watch", run_one<Watching>}, {"gap", run_one<Gap>}};
  const auto found = workloads.find(options.workload);
  if (found == workloads.end()) throw std::invalid_argument("no workload named " + options.workload);
  found->second(loop, options);
}

}  // namespace bench
