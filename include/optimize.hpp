// liboptimize for C++17: make trained models smaller and faster, and run them, without Python.
//
// Introduction
//
//   A Context says where ONNX Runtime is. A Model is loaded, immutable, and freely shared between threads. A
//   technique (Model::quantize ...) takes a model and gives a new one with a report. A model is saved, or made
//   into a Session and run, or into a Generator that writes text. Model::benchmark compares two models; Model::evaluate says what they are worth on data.
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
// Rules that hold for everything here
//
//   Header     This file, with those of the folder beside it, is all there is: it calls the C interface of
//              optimize.h and links with -loptimize. What the functions do is said there; a method of the class
//              for optimize_<noun>_t is the function optimize_<noun>_<method>, and options have the same names.
//   Ownership  Classes are move-only and free what they hold. Children keep alive what they need: a session
//              outlives its model. A moved-from object is empty; using it throws invalid_argument.
//   Errors     What fails throws optimize::Error: what() says all of it, status() and place() take it apart.
//              Nothing is half-done: outputs appear only on success.
//   Options    Plain structs; a default-constructed one means the defaults. The library is always told the size
//              of the struct this file was compiled with, so a newer library works with an older program.
//   Calls      What can take long takes a Call: progress, timeout, cancel. An exception thrown by the progress
//              function, or by a generator's on_token, ends the call and comes out of it.
//   Text       std::string, UTF-8. A path or name with a NUL inside throws invalid_argument.
//   Threads    const methods may be called by any number of threads at once, the others (Session::run, those of
//              Generator) by one at a time.
#ifndef OPTIMIZE_HPP
#define OPTIMIZE_HPP

#include "optimize/call.hpp"
#include "optimize/context.hpp"
#include "optimize/distill.hpp"
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
