// A Generate call: from the engine's step thread to a gRPC stream.
#pragma once

#include "grpcpp/grpcpp.h"
#include "headcount/v1/inference.pb.h"
#include "server/serving.h"

namespace headcount {

// Starts a call and returns its reactor, which owns itself. `serving` outlives
// it.
grpc::ServerWriteReactor<v1::GenerateResponse>* StartGenerate(
    const Serving* serving, grpc::CallbackServerContext* context,
    const v1::GenerateRequest* request);

}  // namespace headcount
