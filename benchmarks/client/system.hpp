// What the load client does to a system; each has the same face, only the encoding differs.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "loop.hpp"
#include "readings.hpp"
#include "socket.hpp"

namespace bench {

struct Setting {
  std::vector<Address> endpoints;
  // How many TCP connections the clients share, spread over the endpoints.
  int connections = 1;
  // Clients of their own: sensors that call, or streams.
  int clients = 1;
  // Messages that a client has on their way.
  int in_flight = 1;
  bool streams = false;
};

using Seen = std::function<void(std::uint64_t number)>;

// An operation that a system doesn't have.
class NotOffered : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Throws when the system refuses or answers nothing useful.
class System {
 public:
  virtual ~System() = default;
  // Writes all or nothing as one message of a client; ends when it is acknowledged. deadline_ns 0: none.
  virtual Task<> write(int client, std::span<const Run> runs, std::int64_t deadline_ns) = 0;
  // No client writes any more.
  virtual Task<> finish() { co_return; }
  // Reads all readings of a series before number count through the last endpoint and compares each.
  virtual Task<> verify(std::uint64_t series, std::uint64_t count) = 0;
  // The newest reading of a series, compared with number count - 1.
  virtual Task<> latest(int client, std::uint64_t series, std::uint64_t count) = 0;
  // Readings of a run, each compared.
  virtual Task<> range(int client, Run run) = 0;
  // Means of windows of so many readings over a run; how many came.
  virtual Task<std::uint64_t> aggregate(int client, Run run, std::uint64_t window) = 0;
  // Tells numbers of readings of a series as they are written from now on, for ever, on a connection of its own.
  virtual Task<> watch(int watcher, std::uint64_t series, Seen seen);
  // Another endpoint for what follows: the one before failed.
  virtual void turn() = 0;
};

inline Task<> System::watch(int, std::uint64_t, Seen) {
  throw NotOffered("no watch");
  co_return;
}

using MakeSystem = std::unique_ptr<System> (*)(Loop&, const Setting&, const Values&);
std::unique_ptr<System> make_raftberry(Loop&, const Setting&, const Values&);
std::unique_ptr<System> make_etcd(Loop&, const Setting&, const Values&);
std::unique_ptr<System> make_nats(Loop&, const Setting&, const Values&);
std::unique_ptr<System> make_influxdb(Loop&, const Setting&, const Values&);
std::unique_ptr<System> make_redis(Loop&, const Setting&, const Values&);

}  // namespace bench
