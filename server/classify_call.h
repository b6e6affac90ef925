// A Classify call: many requests of the engine, one answer.
#pragma once

#include "grpcpp/grpcpp.h"
#include "headcount/v1/inference.pb.h"
#include "server/serving.h"

namespace headcount {

// Starts a call and returns its reactor, which owns itself. `serving` outlives
// it.
grpc::ServerUnaryReactor* StartClassify(const Serving* serving,
                                        grpc::CallbackServerContext* context,
                                        const v1::ClassifyRequest* request,
                                        v1::ClassifyResponse* response);

}  // namespace headcount
