#include "workloads.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <iostream>
#include <map>
#include <sstream>

namespace bench {
namespace {

const std::map<std::string, MakeSystem> SYSTEMS{{"raftberry", make_raftberry}, {"echo", make_raftberry}, {"etcd", make_etcd}};

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

class Writing {
 public:
  Writing(Loop& loop, const Options& options) : loop_(loop), options_(options), values_(options.values), sent_(options.series, 0) {
    const auto found = SYSTEMS.find(options.system);
    if (found == SYSTEMS.end()) throw std::invalid_argument("no system named " + options.system);
    system_ = found->second(loop, options.setting, values_);
  }

  Task<> run() {
    co_await system_->prepare();
    // Connections are open and the series are there before the clock starts.
    co_await each_client([this](int client) { return write_one(client); });
    const auto early = sum();
    pause(options_, "ready");
    latencies_.clear();
    Watch watch;
    end_ns_ = watch.begin_ns() + static_cast<std::int64_t>(options_.seconds * 1e9);
    limit_ = options_.readings ? early + options_.readings : 0;
    co_await each_client([this](int client) { return write_on(client); });
    watch.stop();
    const auto written = sum() - early;
    pause(options_, "written");
    co_await system_->finish();
    if (options_.system != "echo" && !options_.skip_read_back)
      for (std::uint64_t i = 0; i < options_.series; ++i)
        if (sent_[i] > 0) co_await system_->verify(options_.first_series + i, sent_[i]);
    Figures figures;
    figures.add("readings", static_cast<double>(written)).add("per_second", static_cast<double>(written) / watch.seconds());
    report_latencies(figures, latencies_);
    watch.report(figures);
    figures.print();
  }

 private:
  Task<> each_client(const std::function<Task<>(int)>& start) {
    std::vector<Task<>> tasks;
    for (int client = 0; client < options_.setting.clients; ++client)
      for (int i = 0; i < options_.setting.in_flight; ++i) tasks.push_back(start(client));
    co_await loop_.all(std::move(tasks));
  }

  Task<> write_on(int client) {
    while (limit_ ? sum_sent_ < limit_ : now_ns() < end_ns_) co_await write_one(client);
  }

  Task<> write_one(int client) {
    std::vector<Run> runs(options_.series_per_message);
    const auto each = options_.batch / options_.series_per_message;
    for (auto& run : runs) {
      // A client that sends one series a message keeps to its own ones.
      const auto own = static_cast<std::uint64_t>(client) + static_cast<std::uint64_t>(options_.setting.clients) * turn_of(client);
      const auto series = own % options_.series;
      run = {options_.first_series + series, sent_[series], each};
      sent_[series] += each;
      sum_sent_ += each;
    }
    const auto begin = now_ns();
    co_await system_->write(client, runs, 0);
    latencies_.push_back(now_ns() - begin);
  }

  std::uint64_t turn_of(int client) {
    if (turns_.empty()) turns_.resize(options_.setting.clients, 0);
    return turns_[client]++;
  }

  std::uint64_t sum() const { return sum_sent_; }

  Loop& loop_;
  const Options& options_;
  Values values_;
  std::vector<std::uint64_t> sent_;
  std::uint64_t sum_sent_ = 0;
  std::vector<std::uint64_t> turns_;
  std::unique_ptr<System> system_;
  std::vector<std::int64_t> latencies_;
  std::int64_t end_ns_ = 0;
  std::uint64_t limit_ = 0;
};

}  // namespace

void run(Loop& loop, const Options& options) {
  if (options.workload == "write") {
    Writing writing(loop, options);
    loop.run(writing.run());
    return;
  }
  throw std::invalid_argument("no workload named " + options.workload);
}

}  // namespace bench
