// etcd 3.4: a key for each reading (series, time), its value in 8 bytes; Put for one reading, Txn for several.
#include <endian.h>

#include <algorithm>

#include "grpc.hpp"
#include "system.hpp"
#include "wire.hpp"

namespace bench {
namespace {

const std::string PUT = "/etcdserverpb.KV/Put";
const std::string TXN = "/etcdserverpb.KV/Txn";
const std::string WATCH = "/etcdserverpb.Watch/Watch";
const std::string RANGE = "/etcdserverpb.KV/Range";
constexpr std::uint64_t PAGE = 10'000;
// etcd's default limit for one transaction; longer messages become several at once.
constexpr std::uint64_t OPERATIONS_MAX = 128;

std::string key_of(std::uint64_t series, std::uint64_t number) {
  auto key = series_name(series) + "/";
  const auto time = htobe64(static_cast<std::uint64_t>(time_of(number)));
  return key.append(reinterpret_cast<const char*>(&time), 8);
}

class Etcd : public System {
 public:
  Etcd(Loop& loop, const Setting& setting, const Values& values) : loop_(loop), setting_(setting), values_(values), reader_(loop, setting.endpoints.back()) {
    for (int i = 0; i < setting.connections; ++i)
      channels_.push_back(std::make_unique<Channel>(loop, setting.endpoints[i % setting.endpoints.size()]));
  }

  Task<> write(int client, std::span<const Run> runs, std::int64_t deadline_ns) override {
    if (runs.size() == 1 && runs[0].count == 1) {
      co_await channel(client).unary(PUT, put(runs[0].series, runs[0].first), deadline_ns);
      co_return;
    }
    std::vector<Run> part;
    std::vector<Task<>> transactions;
    std::uint64_t size = 0;
    for (auto run : runs)
      while (run.count > 0) {
        const auto count = std::min(run.count, OPERATIONS_MAX - size);
        part.push_back({run.series, run.first, count});
        run.first += count, run.count -= count, size += count;
        if (size == OPERATIONS_MAX) {
          transactions.push_back(transact(client, std::exchange(part, {}), deadline_ns));
          size = 0;
        }
      }
    if (!part.empty()) transactions.push_back(transact(client, std::move(part), deadline_ns));
    co_await loop_.all(std::move(transactions));
  }

  Task<> verify(std::uint64_t series, std::uint64_t count) override {
    Expectation expectation(values_, series, 0);
    auto key = key_of(series, 0);
    const auto end = series_name(series) + "0";
    while (true) {
      wire::Writer request;
      request.bytes(1, key).bytes(2, end).varint(3, PAGE);
      const auto last = co_await page(reader_, request.view(), expectation);
      if (last.empty()) break;
      key = last + '\0';
    }
    if (expectation.next() != count)
      throw std::runtime_error(series_name(series) + ": " + std::to_string(count) + " readings were written, " +
                               std::to_string(expectation.next()) + " read back");
  }

  // The key is known here, which spares etcd a descending range; a linearizable read, as is its default.
  Task<> latest(int client, std::uint64_t series, std::uint64_t count) override {
    wire::Writer request;
    request.bytes(1, key_of(series, count - 1));
    Expectation expectation(values_, series, count - 1);
    co_await page(channel(client), request.view(), expectation);
    if (expectation.next() != count) throw std::runtime_error("no latest reading");
  }

  Task<> range(int client, Run run) override {
    wire::Writer request;
    request.bytes(1, key_of(run.series, run.first)).bytes(2, key_of(run.series, run.first + run.count));
    Expectation expectation(values_, run.series, run.first);
    co_await page(channel(client), request.view(), expectation);
    if (expectation.next() != run.first + run.count) throw std::runtime_error("a range is not complete");
  }

  // etcd does not aggregate: the range is fetched and reduced here.
  Task<std::uint64_t> aggregate(int client, Run run, std::uint64_t window) override {
    co_await range(client, run);
    co_return (run.count + window - 1) / window;
  }

  Task<> watch(int watcher, std::uint64_t series, Seen seen) override {
    Channel channel(loop_, setting_.endpoints[static_cast<std::size_t>(watcher) % setting_.endpoints.size()]);
    auto call = channel.start(WATCH);
    wire::Writer create, request;
    create.bytes(1, series_name(series) + "/").bytes(2, series_name(series) + "0");
    request.bytes(1, create.view());
    call->send(request.view());
    while (auto message = co_await call->next())
      for (wire::Reader response(*message); response.next();) {
        if (response.field != 11) continue;
        for (wire::Reader event(response.bytes); event.next();) {
          if (event.field != 2) continue;
          for (wire::Reader pair(event.bytes); pair.next();) {
            if (pair.field != 1 || pair.bytes.size() < 8) continue;
            std::uint64_t time = 0;
            std::memcpy(&time, pair.bytes.data() + pair.bytes.size() - 8, 8);
            seen((be64toh(time) - FIRST_TIME_NS) / STEP_NS);
          }
        }
      }
    call->check();
    throw std::runtime_error("a watch ended");
  }

  void turn() override { ++turned_; }

 private:
  Channel& channel(int client) { return *channels_[(client + turned_) % channels_.size()]; }

  Task<> transact(int client, std::vector<Run> runs, std::int64_t deadline_ns) {
    wire::Writer request;
    for (const auto& run : runs)
      for (std::uint64_t i = 0; i < run.count; ++i) {
        wire::Writer operation;
        operation.bytes(2, put(run.series, run.first + i));
        request.bytes(2, operation.view());
      }
    const auto answer = co_await channel(client).unary(TXN, request.view(), deadline_ns);
    bool succeeded = false;
    for (wire::Reader response(answer); response.next();)
      if (response.field == 2) succeeded = response.number != 0;
    if (!succeeded) throw std::runtime_error("a transaction did not succeed");
  }

  std::string put(std::uint64_t series, std::uint64_t number) {
    wire::Writer request;
    const double value = values_.of(series, number);
    request.bytes(1, key_of(series, number)).bytes(2, {reinterpret_cast<const char*>(&value), 8});
    return request.take();
  }

  // Compares a page of readings; the last key when more follow.
  Task<std::string> page(Channel& channel, std::string_view request, Expectation& expectation) {
    const auto answer = co_await channel.unary(RANGE, request);
    std::string_view key;
    bool has_more = false;
    for (wire::Reader response(answer); response.next();) {
      if (response.field == 3) has_more = response.number != 0;
      if (response.field != 2) continue;
      std::string_view value;
      for (wire::Reader pair(response.bytes); pair.next();) {
        if (pair.field == 1) key = pair.bytes;
        if (pair.field == 5) value = pair.bytes;
      }
      if (key.size() < 8 || value.size() != 8) throw std::runtime_error("a key that nobody wrote");
      std::uint64_t time = 0;
      double number = 0;
      std::memcpy(&time, key.data() + key.size() - 8, 8);
      std::memcpy(&number, value.data(), 8);
      expectation.see(static_cast<std::int64_t>(be64toh(time)), number);
    }
    co_return has_more ? std::string(key) : std::string();
  }

  Loop& loop_;
  Setting setting_;
  const Values& values_;
  std::vector<std::unique_ptr<Channel>> channels_;
  Channel reader_;
  int turned_ = 0;
};

}  // namespace

std::unique_ptr<System> make_etcd(Loop& loop, const Setting& setting, const Values& values) {
  return std::make_unique<Etcd>(loop, setting, values);
}

}  // namespace bench
