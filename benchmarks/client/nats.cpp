// NATS JetStream: a message of (time, value) for each reading on subject s.SERIES of the stream READINGS.
#include <array>
#include <cstring>
#include <map>
#include <unordered_map>

#include "system.hpp"
#include "waiting.hpp"

namespace bench {
namespace {

const std::string STREAM = "READINGS";
// Nothing more comes from a consumer.
constexpr std::int64_t SILENCE_NS = 30'000'000'000;
constexpr std::int64_t API_TIMEOUT_NS = 10'000'000'000;

std::string subject_of(std::uint64_t series) { return "s." + series_name(series); }

std::string payload_of(const Values& values, std::uint64_t series, std::uint64_t number) {
  const auto time = time_of(number);
  const double value = values.of(series, number);
  std::string payload(16, '\0');
  std::memcpy(payload.data(), &time, 8);
  std::memcpy(payload.data() + 8, &value, 8);
  return payload;
}

struct Reading {
  std::int64_t time_ns;
  double value;
};

Reading reading_of(std::string_view payload) {
  if (payload.size() != 16) throw std::runtime_error("nats: a message that nobody wrote");
  Reading reading{};
  std::memcpy(&reading.time_ns, payload.data(), 8);
  std::memcpy(&reading.value, payload.data() + 8, 8);
  return reading;
}

std::string from_base64(std::string_view text) {
  static const std::string letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  std::uint32_t bits = 0;
  int count = 0;
  for (const char letter : text) {
    const auto value = letters.find(letter);
    if (value == std::string::npos) break;
    bits = bits << 6 | static_cast<std::uint32_t>(value);
    count += 6;
    if (count >= 8) {
      count -= 8;
      bytes += static_cast<char>(bits >> count);
    }
  }
  return bytes;
}

// The value of a text field of JSON without escapes.
std::string_view text_field(std::string_view json, const std::string& name) {
  const auto key = "\"" + name + "\":\"";
  const auto at = json.find(key);
  if (at == std::string_view::npos) throw std::runtime_error("nats: " + std::string(json.substr(0, 300)));
  const auto begin = at + key.size();
  return json.substr(begin, json.find('"', begin) - begin);
}

class Connection : public Stream {
 public:
  using OnMessage = std::function<void(std::string_view)>;

  Connection(Loop& loop, const Address& address, int number)
      : Stream(loop, address), inbox_("_INBOX.bench" + std::to_string(now_ns()) + "n" + std::to_string(number)) {}

  // Publishes and waits for the answer to it.
  Task<std::string> request(std::string subject, std::string payload, std::int64_t deadline_ns) {
    auto waiting = std::make_shared<Waiting>(loop_);
    touch();
    const auto token = std::to_string(next_++);
    open_.emplace(token, waiting);
    output_.append("PUB ").append(subject).append(" ").append(inbox_).append(".").append(token).append(" ");
    output_.append(std::to_string(payload.size())).append("\r\n").append(payload).append("\r\n");
    // A name of its own: GCC 12 destroys a temporary with captures twice in an expression that awaits.
    const std::function<void()> on_late = [this, token] {
      auto late = open_.extract(token);
      late.mapped()->fail("no answer in time");
    };
    co_return co_await Waiting::await(waiting, deadline_ns, on_late);
  }

  // What comes on a subject from now on.
  void subscribe(const std::string& subject, OnMessage on_message) {
    touch();
    const auto id = std::to_string(++subscription_);
    subscriptions_[id] = std::move(on_message);
    output_.append("SUB ").append(subject).append(" ").append(id).append("\r\n");
  }
  const std::string& inbox() const { return inbox_; }

 protected:
  void on_open() override {
    input_.clear();
    output_ = "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true,\"protocol\":1,\"lang\":\"c++\","
              "\"version\":\"1\"}\r\nSUB " + inbox_ + ".* 1\r\n";
  }
  void gather_output(std::string& output) override { output.swap(output_); }
  void on_broken(const std::string& reason) override {
    output_.clear();
    for (auto& [token, waiting] : std::exchange(open_, {})) waiting->fail(reason);
  }

  void on_input(std::string_view input) override {
    input_.append(input);
    std::size_t at = 0;
    while (true) {
      const auto line_end = input_.find("\r\n", at);
      if (line_end == std::string::npos) break;
      const std::string_view line(input_.data() + at, line_end - at);
      at = line_end + 2;
      if (line.starts_with("MSG ") || line.starts_with("HMSG ")) {
        const auto size = std::stoull(std::string(line.substr(line.rfind(' ') + 1)));
        if (input_.size() < at + size + 2) {
          at = line_end + 2 - line.size() - 2;
          break;
        }
        take(line, std::string_view(input_).substr(at, size));
        at += size + 2;
      } else if (line.starts_with("PING")) {
        output_.append("PONG\r\n");
        touch();
      } else if (line.starts_with("-ERR")) {
        break_off(std::string(line));
        return;
      }
    }
    input_.erase(0, at);
  }

 private:
  void take(std::string_view line, std::string_view payload) {
    const auto subject_at = line.find(' ') + 1;
    const auto subject_end = line.find(' ', subject_at);
    const auto subject = line.substr(subject_at, subject_end - subject_at);
    const auto id = line.substr(subject_end + 1, line.find(' ', subject_end + 1) - subject_end - 1);
    if (id != "1") {
      if (const auto found = subscriptions_.find(std::string(id)); found != subscriptions_.end()) found->second(payload);
      return;
    }
    auto open = open_.extract(std::string(subject.substr(subject.rfind('.') + 1)));
    if (open.empty()) return;
    if (line[0] == 'H')
      open.mapped()->fail("nats: " + std::string(payload.substr(0, 40)));
    else
      open.mapped()->answer(std::string(payload));
  }

  std::string inbox_;
  std::string output_;
  std::string input_;
  std::uint64_t next_ = 1;
  int subscription_ = 1;
  std::unordered_map<std::string, std::shared_ptr<Waiting>> open_;
  std::unordered_map<std::string, OnMessage> subscriptions_;
};

class Nats : public System {
 public:
  Nats(Loop& loop, const Setting& setting, const Values& values) : loop_(loop), setting_(setting), values_(values) {
    for (int i = 0; i < setting.connections; ++i) connections_.push_back(connect(i));
    reader_ = connect(static_cast<int>(setting.endpoints.size()) - 1);
  }

  Task<> write(int client, std::span<const Run> runs, std::int64_t deadline_ns) override {
    std::vector<Task<>> publishes;
    for (const auto& run : runs)
      for (std::uint64_t i = 0; i < run.count; ++i) publishes.push_back(publish(client, run.series, run.first + i, deadline_ns));
    co_await loop_.all(std::move(publishes));
  }

  // By a consumer of the stream; a reading may lie there twice where a call was repeated.
  Task<> verify(std::uint64_t series, std::uint64_t count) override {
    std::map<std::int64_t, double> found;
    auto last_ns = now_ns();
    const Connection::OnMessage on_message = [&](std::string_view payload) {
      const auto reading = reading_of(payload);
      found[reading.time_ns] = reading.value;
      last_ns = now_ns();
    };
    co_await consume(*reader_, series, "all", on_message);
    while (found.size() < count && now_ns() < last_ns + SILENCE_NS) co_await loop_.sleep_until(now_ns() + 5'000'000);
    Expectation expectation(values_, series, 0);
    for (const auto& [time_ns, value] : found) expectation.see(time_ns, value);
    if (expectation.next() != count)
      throw std::runtime_error(series_name(series) + ": " + std::to_string(count) + " readings were written, " +
                               std::to_string(expectation.next()) + " read back");
  }

  Task<> latest(int client, std::uint64_t series, std::uint64_t count) override {
    const auto answer = co_await connection(client).request(
        "$JS.API.STREAM.MSG.GET." + STREAM, "{\"last_by_subj\":\"" + subject_of(series) + "\"}", now_ns() + API_TIMEOUT_NS);
    const auto reading = reading_of(from_base64(text_field(answer, "data")));
    Expectation(values_, series, count - 1).see(reading.time_ns, reading.value);
  }

  Task<> range(int, Run) override { throw NotOffered("nats finds messages by sequence or time of arrival, not by the time of a reading"); }
  Task<std::uint64_t> aggregate(int, Run, std::uint64_t) override { throw NotOffered("nats does not aggregate"); }

  Task<> watch(int watcher, std::uint64_t series, Seen seen) override {
    watchers_.push_back(connect(watcher));
    const Connection::OnMessage on_message = [seen](std::string_view payload) {
      seen(static_cast<std::uint64_t>((reading_of(payload).time_ns - FIRST_TIME_NS) / STEP_NS));
    };
    co_await consume(*watchers_.back(), series, "new", on_message);
    Semaphore never(loop_, 0);
    co_await never.acquire();
  }

  void turn() override { ++turned_; }

 private:
  std::unique_ptr<Connection> connect(int number) {
    return std::make_unique<Connection>(loop_, setting_.endpoints[static_cast<std::size_t>(number) % setting_.endpoints.size()], ++connected_);
  }
  Connection& connection(int client) { return *connections_[static_cast<std::size_t>(client + turned_) % connections_.size()]; }

  Task<> publish(int client, std::uint64_t series, std::uint64_t number, std::int64_t deadline_ns) {
    const auto answer = co_await connection(client).request(subject_of(series), payload_of(values_, series, number), deadline_ns);
    if (answer.find("\"seq\":") == std::string::npos) throw std::runtime_error("nats: " + answer);
  }

  // An ephemeral consumer that sends what is in the stream of a series, without acknowledgements.
  Task<> consume(Connection& connection, std::uint64_t series, const char* policy, const Connection::OnMessage& on_message) {
    const auto subject = connection.inbox() + "d" + std::to_string(++delivered_);
    connection.subscribe(subject, on_message);
    const std::string request = "{\"stream_name\":\"" + STREAM + "\",\"config\":{\"deliver_subject\":\"" + subject +
                                "\",\"deliver_policy\":\"" + policy + "\",\"ack_policy\":\"none\",\"filter_subject\":\"" +
                                subject_of(series) + "\",\"num_replicas\":1,\"mem_storage\":true}}";
    const auto end_ns = now_ns() + SILENCE_NS;
    while (true) {
      const auto answer = co_await connection.request("$JS.API.CONSUMER.CREATE." + STREAM, request, now_ns() + API_TIMEOUT_NS);
      if (answer.find("\"error\"") == std::string::npos) co_return;
      // Without a leader of its own JetStream says 503.
      if (answer.find("503") == std::string::npos || now_ns() > end_ns) throw std::runtime_error("nats: " + answer);
      co_await loop_.sleep_until(now_ns() + 200'000'000);
    }
  }

  Loop& loop_;
  Setting setting_;
  const Values& values_;
  std::vector<std::unique_ptr<Connection>> connections_;
  std::unique_ptr<Connection> reader_;
  std::vector<std::unique_ptr<Connection>> watchers_;
  int connected_ = 0;
  int delivered_ = 0;
  int turned_ = 0;
};

}  // namespace

std::unique_ptr<System> make_nats(Loop& loop, const Setting& setting, const Values& values) {
  return std::make_unique<Nats>(loop, setting, values);
}

}  // namespace bench
