// InfluxDB 1.x: line protocol in, InfluxQL out as CSV; one point a reading, tag s is the series.
#include <charconv>

#include "http.hpp"
#include "system.hpp"

namespace bench {
namespace {

const std::string WRITE = "/write?db=bench&precision=ns";
constexpr std::uint64_t VERIFY_READINGS = 100'000;

// Percent-encoded for a URL.
std::string encode(std::string_view text) {
  static const char* digits = "0123456789ABCDEF";
  std::string encoded;
  for (const unsigned char letter : text) {
    if (std::isalnum(letter))
      encoded += static_cast<char>(letter);
    else
      encoded.append({'%', digits[letter >> 4], digits[letter & 15]});
  }
  return encoded;
}

class Influxdb : public System {
 public:
  Influxdb(Loop& loop, const Setting& setting, const Values& values)
      : loop_(loop), setting_(setting), values_(values), reader_(loop, setting.endpoints.back()), idle_(setting.clients) {
    for (auto& idle : idle_)
      for (int i = 0; i < setting.in_flight; ++i) {
        connections_.push_back(std::make_unique<HttpConnection>(loop, setting.endpoints[0]));
        idle.push_back(connections_.back().get());
      }
  }

  Task<> write(int client, std::span<const Run> runs, std::int64_t deadline_ns) override {
    std::string lines;
    for (const auto& run : runs) {
      const auto begin = "r,s=" + series_name(run.series) + " v=";
      for (std::uint64_t i = 0; i < run.count; ++i) {
        char number[32];
        const auto end = std::to_chars(number, number + sizeof number, values_.of(run.series, run.first + i)).ptr;
        lines.append(begin).append(number, end).append(" ").append(std::to_string(time_of(run.first + i))).append("\n");
      }
    }
    co_await call(client, "POST", WRITE, lines, deadline_ns);
  }

  Task<> verify(std::uint64_t series, std::uint64_t count) override {
    for (std::uint64_t first = 0; first < count; first += VERIFY_READINGS) {
      const Run run{series, first, std::min(VERIFY_READINGS, count - first)};
      compare(co_await reader_.request("GET", select("v", run), ""), run);
    }
  }

  Task<> latest(int client, std::uint64_t series, std::uint64_t count) override {
    const auto query = "/query?db=bench&epoch=ns&q=" + encode("SELECT last(v) FROM r WHERE s='" + series_name(series) + "'");
    compare(co_await call(client, "GET", query, "", 0), {series, count - 1, 1});
  }

  Task<> range(int client, Run run) override { compare(co_await call(client, "GET", select("v", run), "", 0), run); }

  Task<std::uint64_t> aggregate(int client, Run run, std::uint64_t window) override {
    const auto csv = co_await call(client, "GET", select("mean(v)", run, " GROUP BY time(" + std::to_string(window) + "s)"), "", 0);
    co_return static_cast<std::uint64_t>(std::count(csv.begin(), csv.end(), '\n')) - 1;
  }

  void turn() override {}

 private:
  // A connection takes one request at a time.
  Task<std::string> call(int client, std::string_view method, std::string target, std::string body, std::int64_t deadline_ns) {
    auto& idle = idle_[client];
    auto* connection = idle.back();
    idle.pop_back();
    struct Back {
      std::vector<HttpConnection*>& idle;
      HttpConnection* connection;
      ~Back() { idle.push_back(connection); }
    } back{idle, connection};
    co_return co_await connection->request(method, target, body, deadline_ns);
  }

  static std::string select(const std::string& what, Run run, const std::string& end = "") {
    return "/query?db=bench&epoch=ns&q=" + encode("SELECT " + what + " FROM r WHERE s='" + series_name(run.series) +
                                                  "' AND time >= " + std::to_string(time_of(run.first)) + " AND time < " +
                                                  std::to_string(time_of(run.first + run.count)) + end);
  }

  // Lines of name,tags,time,value behind a heading.
  void compare(const std::string& csv, Run run) const {
    Expectation expectation(values_, run.series, run.first);
    for (auto at = csv.find('\n'); at != std::string::npos && at + 1 < csv.size();) {
      const auto end = std::min(csv.find('\n', at + 1), csv.size());
      const auto value_at = csv.rfind(',', end - 1);
      const auto time_at = csv.rfind(',', value_at - 1);
      std::int64_t time = 0;
      double value = 0;
      std::from_chars(csv.data() + time_at + 1, csv.data() + value_at, time);
      std::from_chars(csv.data() + value_at + 1, csv.data() + end, value);
      expectation.see(time, value);
      at = end == csv.size() ? std::string::npos : end;
    }
    if (expectation.next() != run.first + run.count)
      throw std::runtime_error(series_name(run.series) + ": " + std::to_string(run.count) + " readings were written, " +
                               std::to_string(expectation.next() - run.first) + " read back: " + csv.substr(0, 200));
  }

  Loop& loop_;
  Setting setting_;
  const Values& values_;
  HttpConnection reader_;
  std::vector<std::unique_ptr<HttpConnection>> connections_;
  std::vector<std::vector<HttpConnection*>> idle_;
};

}  // namespace

std::unique_ptr<System> make_influxdb(Loop& loop, const Setting& setting, const Values& values) {
  return std::make_unique<Influxdb>(loop, setting, values);
}

}  // namespace bench
