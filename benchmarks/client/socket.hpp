// A TCP connection in the loop that is opened when something is to be sent, and again after it broke.
#pragma once

#include <netinet/in.h>

#include <string>
#include <string_view>

#include "loop.hpp"

namespace bench {

struct Address {
  std::string text;
  sockaddr_in socket{};

  // HOST:PORT with a host of four numbers.
  static Address parse(const std::string& text);
};

class Stream : public Source {
 public:
  Stream(Loop& loop, Address address) : loop_(loop), address_(std::move(address)) {}
  ~Stream() override;
  Stream(const Stream&) = delete;

  bool is_open() const { return fd_ >= 0; }
  const Address& address() const { return address_; }
  void on_events(std::uint32_t events) override;
  void flush() override;
  // Ends the connection; what waits for it fails with reason.
  void break_off(const std::string& reason);

 protected:
  // Connects if need be, and sends at the end of this turn of the loop.
  void touch();
  virtual void on_open() {}
  virtual void on_input(std::string_view input) = 0;
  // Appends what is to be sent.
  virtual void gather_output(std::string& output) = 0;
  virtual void on_broken(const std::string& reason) = 0;

  Loop& loop_;

 private:
  void open();
  void want_output(bool wanted);

  Address address_;
  int fd_ = -1;
  bool is_connected_ = false;
  bool is_dirty_ = false;
  bool wants_output_ = false;
  std::string output_;
  std::size_t output_at_ = 0;
};

}  // namespace bench
