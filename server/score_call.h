// A Score call.
#pragma once

#include "grpcpp/grpcpp.h"
#include "headcount/v1/inference.pb.h"
#include "server/serving.h"

namespace headcount {

// Starts a call and returns its reactor, which owns itself. `serving` outlives
// it.
grpc::ServerUnaryReactor* StartScore(const Serving* serving,
                                     grpc::CallbackServerContext* context,
                                     const v1::ScoreRequest* request,
                                     v1::ScoreResponse* response);

}  // namespace headcount
