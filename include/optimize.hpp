// liboptimize for C++17: makes trained models smaller and faster, and runs them, without Python.
//
// Introduction
//
//   A Context holds the ONNX Runtime library. A Model is loaded, immutable, and shared freely between threads. A
//   technique (Model::quantize ...) takes a model and returns a new one with a report. A model is saved, run in a
//   Session, or used by a Generator to generate text. Model::benchmark compares two models; Model::evaluate
//   measures them on data.
//
//     optimize::Context context;
//     optimize::Model model(context, "model.onnx");
//     auto small = model.quantize(context);
//     small.model.save("small.onnx");
//
//     optimize::Tokenizer tokenizer("tokenizer.json");
//     auto text = tokenizer.encode({"A man is eating food."});
//     optimize::Session session(context, small.model);
//     auto outputs = session.run({{"input_ids", text.ids}, {"attention_mask", text.attention_mask}});
//     const float *embedding = outputs[0].data<float>();
//
//     optimize::Model chat(context, "SmolLM2-135M-Instruct.Q4_1.gguf");
//     optimize::Generator generator(context, chat);
//     optimize::GenerateOptions options;
//     options.on_token = [](const optimize::Written &written) { return bool(std::cout << written.text); };
//     generator.generate({"The capital of France is"}, options);
//
//     optimize::Ensemble ensemble({&chat, &other});
//     ensemble.generator(context).generate({"The capital of France is"}, options);
//
// Rules for everything here
//
//   Header     This file and the folder next to it are header-only: they call the C interface of optimize.h and
//              link with -loptimize. optimize.h documents the functions; a method of the class for
//              optimize_<noun>_t is the function optimize_<noun>_<method>, and options have the same names.
//   Ownership  Classes are move-only and free what they own. Objects keep alive what they need: a session
//              outlives its model. A moved-from object is empty; using it throws invalid_argument.
//   Errors     A failure throws optimize::Error: what() is the whole text, status() and place() are its parts.
//              Outputs appear only on success.
//   Options    Plain structs; a default-constructed one has the defaults. The library receives the size of the
//              struct that this file was compiled with, so a newer library works with an older program.
//   Calls      A long operation takes a Call: progress, timeout, cancel token. An exception thrown by the progress
//              function, or by a generator's on_token, ends the call and is rethrown by it.
//   Text       std::string, UTF-8. A path or name that contains a NUL throws invalid_argument.
//   Threads    Any number of threads may call const methods concurrently, and one thread at a time the others
//              (Session::run, those of Generator, Embedder and Classifier).

#ifndef OPTIMIZE_HPP
#define OPTIMIZE_HPP

#include "optimize/call.hpp"
#include "optimize/context.hpp"
#include "optimize/distill.hpp"
#include "optimize/encoder.hpp"
#include "optimize/ensemble.hpp"
#include "optimize/error.hpp"
#include "optimize/generator.hpp"
#include "optimize/measure.hpp"
#include "optimize/model.hpp"
#include "optimize/package.hpp"
#include "optimize/session.hpp"
#include "optimize/tensor.hpp"
#include "optimize/tensorrt.hpp"
#include "optimize/tokenizer.hpp"

#endif // OPTIMIZE_HPP
