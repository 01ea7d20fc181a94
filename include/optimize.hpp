// liboptimize for C++17: makes trained models smaller and faster, and runs them, without Python.
//
// Introduction
//
//   A Context holds the ONNX Runtime library. A Model is loaded from a file; it is immutable, and any number of
//   threads may use it. A technique (Model::quantize ...) returns a new model and a report. A model can be saved,
//   run in a Session, or used by a Generator to generate text. Model::benchmark compares two models;
//   Model::evaluate measures one or two models on data.
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
// Rules for all classes and functions
//
//   Header     This file and the folder next to it are header-only: they call the C interface of optimize.h and
//              link with -loptimize. optimize.h documents the functions in detail: a method of the class for
//              optimize_<noun>_t usually calls the function optimize_<noun>_<method>, and options have the same
//              names.
//   Ownership  Objects free the memory that they own, and are move-only, except Report, whose copies share the
//              content. They keep alive what they need: a session can be used after its model was destroyed. A
//              moved-from object is empty: functions that can fail throw invalid_argument, others return 0 or an
//              empty value.
//   Errors     A failure of the library throws optimize::Error. what() is the place and the message; status(),
//              message() and place() return them one by one.
//   Options    Options are plain structs; a default-constructed one has the defaults. The library receives the
//              size of the struct with which the program was compiled, so it also works with older programs.
//   Calls      A function that can run long takes a Call: progress callback, timeout and cancel token. If a
//              callback throws an exception, the function ends and throws this exception.
//   Text       Text is std::string in UTF-8. A path or name that contains a NUL throws invalid_argument.
//   Threads    Any number of threads may concurrently call const methods of an object, and only one thread at a
//              time its other methods (those of Generator, and moves of all objects).

#ifndef OPTIMIZE_HPP
#define OPTIMIZE_HPP

#include "optimize/call.hpp"
#include "optimize/context.hpp"
#include "optimize/distill.hpp"
#include "optimize/encoder.hpp"
#include "optimize/ensemble.hpp"
#include "optimize/error.hpp"
#include "optimize/generator.hpp"
#include "optimize/log.hpp"
#include "optimize/measure.hpp"
#include "optimize/model.hpp"
#include "optimize/package.hpp"
#include "optimize/prune.hpp"
#include "optimize/quantize.hpp"
#include "optimize/recipe.hpp"
#include "optimize/report.hpp"
#include "optimize/session.hpp"
#include "optimize/sink.hpp"
#include "optimize/source.hpp"
#include "optimize/table.hpp"
#include "optimize/tagger.hpp"
#include "optimize/tensor.hpp"
#include "optimize/tensorrt.hpp"
#include "optimize/tokenizer.hpp"

#endif // OPTIMIZE_HPP
