// A gRPC server that answers every message with an empty one: what the client and HTTP/2 alone can do.
#pragma once

#include "loop.hpp"
#include "socket.hpp"

namespace bench {

// Serves until the process is ended.
void serve_echo(Loop& loop, const Address& address);

}  // namespace bench
