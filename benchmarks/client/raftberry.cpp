// Raftberry: Write, StreamWrite, GetLatest, Query; an endpoint of the echo answers the first two alike.
#include <stdexcept>

#include "grpc.hpp"
#include "system.hpp"
#include "wire.hpp"

namespace bench {
namespace {

const std::string SERVICE = "/raftberry.v1.ReadingService/";
const std::string WRITE = SERVICE + "Write";
const std::string STREAM_WRITE = SERVICE + "StreamWrite";
const std::string GET_LATEST = SERVICE + "GetLatest";
const std::string WATCH = SERVICE + "Watch";
const std::string QUERY = SERVICE + "Query";
constexpr std::uint64_t VERIFY_READINGS = 500'000;
constexpr std::uint64_t AGGREGATION_MEAN = 3;

struct Columns {
  std::vector<std::int64_t> times;
  std::vector<double> values;
};

// One answered request of a stream.
struct Slot {
  std::coroutine_handle<> waiter;
  std::string error;
  bool is_done = false;
};

// A StreamWrite: answers come in the order of requests.
struct Writing {
  std::shared_ptr<Call> call;
  std::deque<Slot*> open;
};

class Raftberry : public System {
 public:
  Raftberry(Loop& loop, const Setting& setting, const Values& values)
      : loop_(loop), setting_(setting), values_(values), reader_(loop, setting.endpoints.back()), writings_(setting.clients) {
    for (int i = 0; i < setting.connections; ++i)
      channels_.push_back(std::make_unique<Channel>(loop, setting.endpoints[i % setting.endpoints.size()]));
  }

  Task<> write(int client, std::span<const Run> runs, std::int64_t deadline_ns) override {
    const auto request = encode(runs);
    if (setting_.streams)
      co_await stream(client, request);
    else
      co_await channel(client).unary(WRITE, request, deadline_ns);
  }

  Task<> finish() override {
    for (auto& writing : writings_)
      if (writing.call) {
        writing.call->half_close();
        co_await writing.call->closed();
        writing.call->check();
      }
  }

  Task<> verify(std::uint64_t series, std::uint64_t count) override {
    for (std::uint64_t first = 0; first < count; first += VERIFY_READINGS)
      co_await read_run(reader_, {series, first, std::min(VERIFY_READINGS, count - first)});
    if ((co_await query(reader_, request_of(series, time_of(count), std::nullopt).take())).times.size() != 0)
      throw std::runtime_error(series_name(series) + ": more readings than were written");
  }

  Task<> latest(int client, std::uint64_t series, std::uint64_t count) override {
    wire::Writer request;
    request.bytes(1, series_name(series)).bytes(2, "value");
    const auto columns = co_await stream_columns(channel(client), GET_LATEST, request.take());
    if (columns.times.size() != 1) throw std::runtime_error("not one latest reading");
    Expectation(values_, series, count - 1).see(columns.times[0], columns.values[0]);
  }

  Task<> range(int client, Run run) override { return read_run(channel(client), run); }

  Task<std::uint64_t> aggregate(int client, Run run, std::uint64_t window) override {
    auto request = request_of(run.series, time_of(run.first), time_of(run.first + run.count));
    const std::uint64_t mean = AGGREGATION_MEAN;
    request.varint(7, mean).varint(9, window * STEP_NS);
    co_return (co_await query(channel(client), request.take())).times.size();
  }

  Task<> watch(int watcher, std::uint64_t series, Seen seen) override {
    Channel channel(loop_, setting_.endpoints[static_cast<std::size_t>(watcher) % setting_.endpoints.size()]);
    auto call = channel.start(WATCH);
    wire::Writer request;
    request.bytes(1, series_name(series)).bytes(2, "value");
    call->send(request.view());
    call->half_close();
    while (auto message = co_await call->next())
      for (wire::Reader response(*message); response.next();)
        if (response.field == 2)
          for (wire::Reader readings(response.bytes); readings.next();)
            if (readings.field == 4)
              for (std::size_t at = 0; at + 8 <= readings.bytes.size(); at += 8) {
                std::int64_t time = 0;
                std::memcpy(&time, readings.bytes.data() + at, 8);
                seen(static_cast<std::uint64_t>((time - FIRST_TIME_NS) / STEP_NS));
              }
    call->check();
    throw std::runtime_error("a watch ended");
  }

  void turn() override { ++turned_; }

 private:
  Channel& channel(int client) { return *channels_[(client + turned_) % channels_.size()]; }

  std::string encode(std::span<const Run> runs) {
    wire::Writer request;
    for (const auto& run : runs) {
      times_.resize(run.count);
      for (std::uint64_t i = 0; i < run.count; ++i) times_[i] = time_of(run.first + i);
      wire::Writer readings;
      readings.reserve(run.count * 16 + 64);
      readings.bytes(1, series_name(run.series)).bytes(2, "value");
      readings.packed(4, std::span<const std::int64_t>(times_));
      readings.packed(5, std::span(values_.from(run.series, run.first, run.count), run.count));
      request.bytes(1, readings.view());
    }
    return request.take();
  }

  Task<> stream(int client, const std::string& request) {
    auto& writing = writings_[client];
    if (!writing.call) {
      writing.call = channel(client).start(STREAM_WRITE);
      readers_.push_back(listen(writing));
      starting_.push_back(start(readers_.back()));
    }
    Slot slot;
    writing.open.push_back(&slot);
    writing.call->send(request);
    struct Answer {
      Slot& slot;
      bool await_ready() const noexcept { return slot.is_done; }
      void await_suspend(std::coroutine_handle<> handle) noexcept { slot.waiter = handle; }
      void await_resume() const {
        if (!slot.error.empty()) throw std::runtime_error(slot.error);
      }
    };
    co_await Answer{slot};
  }

  // Gives each answer of a stream to who waits for it.
  Task<> listen(Writing& writing) {
    while (auto message = co_await writing.call->next()) {
      if (writing.open.empty()) throw std::runtime_error("an answer to no request");
      auto* slot = writing.open.front();
      writing.open.pop_front();
      for (wire::Reader response(*message); response.next();)
        if (response.field == 2)
          for (wire::Reader status(response.bytes); status.next();) {
            if (status.field == 1 && status.number != 0) slot->error = "refused: " + std::string(response.bytes);
          }
      done(*slot);
    }
    for (auto* slot : std::exchange(writing.open, {})) {
      slot->error = "the stream ended before an answer";
      done(*slot);
    }
  }

  void done(Slot& slot) {
    slot.is_done = true;
    if (slot.waiter) loop_.ready(slot.waiter);
  }

  struct Started {
    struct promise_type {
      Started get_return_object() { return {}; }
      std::suspend_never initial_suspend() noexcept { return {}; }
      std::suspend_never final_suspend() noexcept { return {}; }
      void return_void() {}
      void unhandled_exception() { std::terminate(); }
    };
  };
  static Started start(Task<>& task) { co_await task; }

  wire::Writer request_of(std::uint64_t series, std::int64_t start_ns, std::optional<std::int64_t> end_ns) {
    wire::Writer request;
    request.bytes(1, series_name(series)).bytes(2, "value").varint(3, start_ns);
    if (end_ns) request.varint(4, *end_ns);
    return request;
  }

  Task<Columns> query(Channel& channel, std::string request) { return stream_columns(channel, QUERY, std::move(request)); }

  Task<Columns> stream_columns(Channel& channel, const std::string& path, std::string request) {
    auto call = channel.start(path);
    call->send(request);
    call->half_close();
    Columns columns;
    while (auto message = co_await call->next())
      for (wire::Reader response(*message); response.next();)
        if (response.field == 1)
          for (wire::Reader readings(response.bytes); readings.next();) {
            const auto* data = readings.bytes.data();
            const auto count = readings.bytes.size() / 8;
            if (readings.field == 4) append(columns.times, data, count);
            if (readings.field == 5) append(columns.values, data, count);
          }
    call->check();
    if (columns.times.size() != columns.values.size()) throw std::runtime_error("columns of unequal length");
    co_return columns;
  }

  template <class T>
  static void append(std::vector<T>& column, const char* data, std::size_t count) {
    const auto size = column.size();
    column.resize(size + count);
    std::memcpy(column.data() + size, data, count * sizeof(T));
  }

  Task<> read_run(Channel& channel, Run run) {
    const auto columns = co_await query(channel, request_of(run.series, time_of(run.first), time_of(run.first + run.count)).take());
    Expectation expectation(values_, run.series, run.first);
    for (std::size_t i = 0; i < columns.times.size(); ++i) expectation.see(columns.times[i], columns.values[i]);
    if (columns.times.size() != run.count)
      throw std::runtime_error(series_name(run.series) + ": " + std::to_string(run.count) + " readings were written, " +
                               std::to_string(columns.times.size()) + " read back");
  }

  Loop& loop_;
  Setting setting_;
  const Values& values_;
  std::vector<std::unique_ptr<Channel>> channels_;
  Channel reader_;
  std::vector<Writing> writings_;
  std::deque<Task<>> readers_;
  std::vector<Started> starting_;
  std::vector<std::int64_t> times_;
  int turned_ = 0;
};

}  // namespace

std::unique_ptr<System> make_raftberry(Loop& loop, const Setting& setting, const Values& values) {
  return std::make_unique<Raftberry>(loop, setting, values);
}

}  // namespace bench
