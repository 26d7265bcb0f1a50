// Redis: a stream for each series (XADD with the time as id), then WAIT for one replica: on a majority, in its memory.
#include <algorithm>
#include <charconv>
#include <cstring>
#include <iterator>

#include "system.hpp"
#include "waiting.hpp"

namespace bench {
namespace {

constexpr std::uint64_t VERIFY_READINGS = 100'000;
constexpr std::int64_t MS = 1'000'000;

std::string command(std::initializer_list<std::string_view> words) {
  std::string text = "*" + std::to_string(words.size()) + "\r\n";
  for (const auto word : words) text.append("$").append(std::to_string(word.size())).append("\r\n").append(word).append("\r\n");
  return text;
}

// A value of RESP, scalars in their order: what a nested array holds, flattened.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}
  bool is_at_end() const { return at_ >= text_.size(); }
  // The next scalar; arrays are entered.
  std::string_view next() {
    while (true) {
      const auto line = text_.find("\r\n", at_);
      const char kind = text_[at_];
      const auto head = text_.substr(at_ + 1, line - at_ - 1);
      at_ = line + 2;
      if (kind == '*') continue;
      if (kind == '-') throw std::runtime_error("redis: " + std::string(head));
      if (kind != '$') return head;
      long size = 0;
      std::from_chars(head.data(), head.data() + head.size(), size);
      if (size < 0) return {};
      const auto value = text_.substr(at_, static_cast<std::size_t>(size));
      at_ += static_cast<std::size_t>(size) + 2;
      return value;
    }
  }

 private:
  std::string_view text_;
  std::size_t at_ = 0;
};

class Connection : public Stream {
 public:
  using Stream::Stream;

  // The answers to so many commands, as they came.
  Task<std::string> request(std::string_view commands, int answers, std::int64_t deadline_ns = 0) {
    auto waiting = std::make_shared<Waiting>(loop_);
    touch();
    output_.append(commands);
    open_.push_back({waiting, answers});
    const std::function<void()> on_late = [this] { break_off("no answer in time"); };
    co_return co_await Waiting::await(waiting, deadline_ns, on_late);
  }

 protected:
  void on_open() override { input_.clear(), scanned_ = 0, values_left_ = 0; }
  void gather_output(std::string& output) override { output.swap(output_); }
  void on_broken(const std::string& reason) override {
    output_.clear();
    for (auto& open : std::exchange(open_, {})) open.waiting->fail(reason);
  }

  void on_input(std::string_view input) override {
    input_.append(input);
    while (!open_.empty()) {
      if (values_left_ == 0) values_left_ = open_.front().answers;
      while (values_left_ > 0 && scan_one()) {
      }
      if (values_left_ > 0) return;
      const auto waiting = open_.front().waiting;
      open_.pop_front();
      waiting->answer(input_.substr(0, scanned_));
      input_.erase(0, scanned_);
      scanned_ = 0;
    }
  }

 private:
  struct Open {
    std::shared_ptr<Waiting> waiting;
    long answers;
  };

  // Passes one scalar or the head of one array; false: it is not complete.
  bool scan_one() {
    const auto line = input_.find("\r\n", scanned_);
    if (line == std::string::npos) return false;
    long count = 0;
    std::from_chars(input_.data() + scanned_ + 1, input_.data() + line, count);
    auto end = line + 2;
    if (input_[scanned_] == '$' && count >= 0) end += static_cast<std::size_t>(count) + 2;
    if (end > input_.size()) return false;
    values_left_ -= 1;
    if (input_[scanned_] == '*' && count > 0) values_left_ += count;
    scanned_ = end;
    return true;
  }

  std::string output_;
  std::string input_;
  std::size_t scanned_ = 0;
  long values_left_ = 0;
  std::deque<Open> open_;
};

class Redis : public System {
 public:
  // Writes go to the first endpoint, the master: only it takes them. Others are for turn().
  Redis(Loop& loop, const Setting& setting, const Values& values)
      : loop_(loop), setting_(setting), values_(values), connections_(setting.clients) {
    open_connections();
  }

  Task<> write(int client, std::span<const Run> runs, std::int64_t deadline_ns) override {
    std::string commands;
    int count = 1;
    for (const auto& run : runs)
      for (std::uint64_t i = 0; i < run.count; ++i, ++count) {
        const double value = values_.of(run.series, run.first + i);
        commands += command({"XADD", series_name(run.series), id_of(run.first + i), "v", {reinterpret_cast<const char*>(&value), 8}});
      }
    // WAIT ends when a replica has everything, or after its timeout with 0.
    commands += command({"WAIT", "1", "5000"});
    const auto answers = co_await connection(client, runs[0].series).request(commands, count, deadline_ns);
    Scanner scanner(answers);
    std::string_view last;
    while (!scanner.is_at_end()) {
      try {
        last = scanner.next();
      } catch (const std::runtime_error& error) {
        // A write that was tried before and came through.
        if (deadline_ns == 0 || std::string_view(error.what()).find("equal or smaller") == std::string_view::npos) throw;
      }
    }
    if (last == "0") throw std::runtime_error("redis: no replica has it");
  }

  Task<> verify(std::uint64_t series, std::uint64_t count) override {
    for (std::uint64_t first = 0; first < count; first += VERIFY_READINGS)
      co_await range(0, {series, first, std::min(VERIFY_READINGS, count - first)});
  }

  Task<> latest(int client, std::uint64_t series, std::uint64_t count) override {
    const auto request = command({"XREVRANGE", series_name(series), "+", "-", "COUNT", "1"});
    const auto answer = co_await connection(client, series).request(request, 1);
    compare(answer, {series, count - 1, 1});
  }

  Task<> range(int client, Run run) override {
    const auto request = command({"XRANGE", series_name(run.series), id_of(run.first), id_of(run.first + run.count - 1)});
    compare(co_await connection(client, run.series).request(request, 1), run);
  }

  // Redis does not aggregate streams: the range is fetched and reduced here.
  Task<std::uint64_t> aggregate(int client, Run run, std::uint64_t window) override {
    co_await range(client, run);
    co_return (run.count + window - 1) / window;
  }

  Task<> watch(int watcher, std::uint64_t series, Seen seen) override {
    Connection connection(loop_, setting_.endpoints[static_cast<std::size_t>(watcher) % setting_.endpoints.size()]);
    std::string last = "$";
    while (true) {
      const auto request = command({"XREAD", "BLOCK", "0", "STREAMS", series_name(series), last});
      const auto answer = co_await connection.request(request, 1);
      Scanner scanner(answer);
      scanner.next();
      while (!scanner.is_at_end()) {
        last = scanner.next();
        scanner.next();
        scanner.next();
        seen(number_of(last));
      }
    }
  }

  void turn() override {
    ++turned_;
    open_connections();
  }

 private:
  static std::string id_of(std::uint64_t number) { return std::to_string(time_of(number) / MS) + "-0"; }
  static std::uint64_t number_of(std::string_view id) {
    std::int64_t time_ms = 0;
    std::from_chars(id.data(), id.data() + id.size(), time_ms);
    return static_cast<std::uint64_t>((time_ms * MS - FIRST_TIME_NS) / STEP_NS);
  }

  void open_connections() {
    for (auto& own : connections_) {
      std::move(own.begin(), own.end(), std::back_inserter(left_));
      own.clear();
      for (int i = 0; i < setting_.in_flight; ++i)
        own.push_back(std::make_unique<Connection>(loop_, setting_.endpoints[turned_ % setting_.endpoints.size()]));
    }
  }

  // WAIT holds a connection, so a client has several; a series keeps to one, because ids of a stream may only rise.
  Connection& connection(int client, std::uint64_t series) {
    const auto& own = connections_[client];
    return *own[series % own.size()];
  }

  // Entries of id, "v", value.
  void compare(const std::string& answer, Run run) const {
    Expectation expectation(values_, run.series, run.first);
    for (Scanner scanner(answer); !scanner.is_at_end();) {
      const auto number = number_of(scanner.next());
      scanner.next();
      const auto text = scanner.next();
      double value = 0;
      if (text.size() == 8) std::memcpy(&value, text.data(), 8);
      expectation.see(time_of(number), value);
    }
    if (expectation.next() != run.first + run.count)
      throw std::runtime_error(series_name(run.series) + ": " + std::to_string(run.count) + " readings were written, " +
                               std::to_string(expectation.next() - run.first) + " read back");
  }

  Loop& loop_;
  Setting setting_;
  const Values& values_;
  std::vector<std::vector<std::unique_ptr<Connection>>> connections_;
  // Of endpoints that were turned away from: somebody may still hold them.
  std::vector<std::unique_ptr<Connection>> left_;
  std::size_t turned_ = 0;
};

}  // namespace

std::unique_ptr<System> make_redis(Loop& loop, const Setting& setting, const Values& values) {
  return std::make_unique<Redis>(loop, setting, values);
}

}  // namespace bench
