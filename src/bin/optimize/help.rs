//! The texts below the options in the help of the command and of its subcommands, which contain examples. A test parses
//! each example.

/// The text below the list of subcommands.
pub const COMMAND: &str = "\
Environment:
  ORT_DYLIB_PATH          Path of the ONNX Runtime library; see --runtime-library
  OPTIMIZE_TENSORRT_PATH  Folder of TensorRT's libraries; see --tensorrt-library
  OPTIMIZE_KERNELS        `stock` disables this library's CPU kernels for --precision fp32;
                          see --kernels
  OPTIMIZE_CPU            Highest class of CPU kernels to use: scalar, avx2, avx2vnni, avx512vnni,
                          avx512bf16, amx

Texts:
  An option that takes the file of a text also takes a pipe, and - for standard input; one option
  per call. distill, embed, classify and tag read a pipe or standard input that begins with { like a
  .jsonl file.

Progress:
  With --progress json, stderr has one JSON object per line: the stage, the units done, the total
  if it is known, the unit, and the estimated seconds_left of the stage. Warnings and errors remain
  text; --quiet leaves out the warnings.

Exit codes:
  0 success, 1 failure, 2 usage error, 3 quality or speed limit not met, 130 interrupted
  (143 by SIGTERM)

`optimize COMMAND --help` shows the options and examples of a command.";

pub const INSPECT: &str = "\
Examples:
  optimize inspect --model model.onnx
  optimize inspect --model folder/ --plan";

pub const QUANTIZE: &str = "\
Examples:
  optimize quantize --model model.onnx --output small.onnx --benchmark
  optimize quantize --model folder/ --output small/ --type weight-only --bits 4";

pub const PRUNE: &str = "\
Examples:
  optimize prune --model folder/ --output narrow/ --method structured --sparsity 0.3
  optimize prune -m folder/ -o sparse/ --method wanda --sparsity 0.5 --calibration text.txt";

pub const ENSEMBLE: &str = "\
Examples:
  optimize ensemble --models a.gguf b/ --method mean --prompt \"Once upon a time\" --max-length 100
  optimize ensemble --models a.onnx b.onnx --fuse --output both.onnx";

pub const DISTILL: &str = "\
Examples:
  optimize distill --teacher folder/ --student layers:every-other --data text.txt --output student/
  optimize distill --teacher folder/ --student small/ --data text.txt --output new/ --resume";

pub const COMPILE: &str = "\
Examples:
  optimize compile --model folder/ --output package/
  optimize compile --model folder/ --output package/ --dynamic --batch-max 64";

pub const TENSORRT: &str = "\
Examples:
  optimize tensorrt --model folder/ --precision fp16 --sequence-length 128 --output model.engine
  optimize tensorrt --model model.onnx --graph-only --output ahead.onnx";

pub const APPLY: &str = "\
A recipe is a JSON list of steps. A step has the name of its operation, and options by their names in reports:
  [{\"operation\": \"quantize\", \"type\": \"dynamic\"}, {\"operation\": \"compile\", \"dynamic\": true}]
The report of a technique (--json) has the recipe that repeats it, and can be given as --recipe.

Examples:
  optimize apply --model folder/ --recipe recipe.json --output package/
  optimize apply --schema > recipe.schema.json";

pub const TABLE: &str = "\
A finished row is kept in the folder and not measured again, also after an interrupt. `--list-rows` has their names.

Examples:
  optimize table --models folder/ --output table/
  optimize table --models encoder/ decoder.gguf --data text.txt --rows int8 int4 --output table/";

pub const BENCHMARK: &str = "\
Examples:
  optimize benchmark --model model.onnx --against small.onnx
  optimize benchmark --model model.onnx --against small.onnx --min-cosine 0.99";

pub const EVALUATE: &str = "\
Examples:
  optimize evaluate --model model.gguf --data text.txt
  optimize evaluate --model folder/ --against small/ --data text.txt --max-perplexity-ratio 1.02";

pub const GENERATE: &str = "\
Examples:
  optimize generate --model model.gguf --chat --prompt \"What is the capital of France?\"
  optimize generate --model folder/ --prompt \"Once upon a time\" --sample --seed 1";

pub const RUN: &str = "\
Examples:
  optimize run --model folder/ --text \"How are you?\"
  optimize run --model vision.onnx --inputs picture.safetensors --json";

pub const EMBED: &str = "\
Prints one line of JSON for each text, with its index and its embedding.

Examples:
  optimize embed --model package/ --text \"How are you?\" --normalize
  optimize embed --model folder/ --data texts.txt --prompt-name query > vectors.jsonl";

pub const CLASSIFY: &str = "\
Prints one line for each text: the class with the highest score, that score, and the text.
With --json, prints a line of JSON with the scores of all classes.

Examples:
  optimize classify --model folder/ --text \"A fine film.\" --json
  optimize classify --model reranker/ --data pairs.jsonl --json > scores.jsonl";

pub const TAG: &str = "\
Prints one line per span: the index of the text, the label, its score, and the part of the text.
With --json, prints one line of JSON per text with its spans, whose start and end are byte offsets.

Examples:
  optimize tag --model ner/ --text \"Ada Lovelace was born in London.\"
  optimize tag --model ner/ --data letters.txt --aggregation average --json > spans.jsonl";

pub const PROVIDERS: &str = "\
Examples:
  optimize providers
  optimize providers --json";

pub const COMPLETIONS: &str = "\
Examples:
  optimize completions bash > ~/.local/share/bash-completion/completions/optimize
  optimize completions fish > ~/.config/fish/completions/optimize.fish";

pub const MAN: &str = "\
Examples:
  optimize man | man -l -
  optimize man --output ~/.local/share/man/man1";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Arguments;
    use clap::{CommandFactory, Parser};

    /// Returns the words of a line as a shell reads it: without quotes, and without the words after `>` or `|`.
    fn words(line: &str) -> Vec<String> {
        let mut words = Vec::new();
        for (index, part) in line.split('"').enumerate() {
            match index % 2 {
                0 => words.extend(part.split_whitespace().map(str::to_owned)),
                _ => words.push(part.to_owned()),
            }
        }
        words.into_iter().take_while(|word| word != ">" && word != "|").collect()
    }

    #[test]
    fn each_command_has_examples_that_it_takes() {
        for command in Arguments::command().get_subcommands() {
            let (name, help) = (command.get_name(), command.clone().render_help().to_string());
            let examples: Vec<_> = help.lines().filter(|line| line.starts_with("  optimize ")).collect();
            assert!(examples.len() >= 2, "{name} has {} examples", examples.len());
            for example in examples {
                let words = words(example);
                assert_eq!(words[1], name);
                let parsed = Arguments::try_parse_from(&words);
                assert!(parsed.is_ok(), "{example} is refused: {}", parsed.err().unwrap());
            }
        }
    }

    #[test]
    fn the_definition_of_the_command_is_consistent() {
        Arguments::command().debug_assert();
        assert!(COMMAND.contains(optimize::tensorrt::PATH_VARIABLE));
        for class in optimize::kernels::Class::ALL {
            assert!(COMMAND.contains(class.name()), "{} is not in the help", class.name());
        }
    }
}
