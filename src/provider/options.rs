//! Options of the provider in a session.

use std::path::PathBuf;

use super::abi::{Error, Result};
use super::patterns::Kind;

/// The precision in which float32 products with constant weights are computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Precision {
    /// float32; these products are not claimed, because ONNX Runtime's kernels are as fast as the processor allows.
    #[default]
    Float32,
    /// bfloat16 weights and inputs.
    Bfloat16,
    /// int8, with a scale per column of the weights and per row of the inputs.
    Int8,
}

/// The options of the provider, which a program gives with the name of the provider: `{"precision": "bf16", "threads":
/// "4"}`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Option `precision`: `fp32` (the default), `bf16` or `int8`.
    pub precision: Precision,
    /// Option `threads`: number of threads of the session, 1 to 1024; default: one per processor. It determines into
    /// how many tasks a run is divided, which the session's own threads process, and how many threads pack weights when
    /// the session is created.
    pub threads: usize,
    /// Option `claim`: the kinds of groups that are claimed, a list of `linear`, `quantized`, `blocks`, `attention`,
    /// `norm` and `activation`, such as `attention,norm`. `None` (default) claims the kinds that are faster than on
    /// ONNX Runtime's own kernels on this processor; an empty list claims none.
    pub claim: Option<Vec<Kind>>,
    /// Whether any option of the provider was given.
    pub given: bool,
    /// Path of the compiled model to write (`ep.context_enable`). If it is empty, the compiled model is written next to
    /// the model; if it is `None`, no compiled model is written.
    pub compile_to: Option<PathBuf>,
    /// Path of the compiled model to write, or of one that was loaded from memory (`ep.context_file_path`); empty if
    /// the session does not set it.
    pub context_path: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let precision = Precision::default();
        Self { precision, threads, claim: None, given: false, compile_to: None, context_path: PathBuf::new() }
    }
}

/// Prefix of the provider's keys: ONNX Runtime writes the name of the provider in lower case.
const PREFIX: &str = "ep.optimizeexecutionprovider.";

impl Options {
    /// Returns the options of the provider among the configuration entries of a session. Fails if a value is invalid or
    /// the provider has no such option.
    pub fn parse(entries: &[(String, String)]) -> Result<Self> {
        let mut options = Self::default();
        for (key, value) in entries {
            match key.as_str() {
                "ep.context_file_path" => options.context_path = value.into(),
                "ep.context_enable" if value == "1" => options.compile_to = Some(PathBuf::new()),
                key => {
                    if let Some(name) = key.strip_prefix(PREFIX) {
                        options.set(name, value)?;
                        options.given = true;
                    }
                }
            }
        }
        if options.compile_to.is_some() {
            options.compile_to = Some(options.context_path.clone());
        }
        Ok(options)
    }

    /// Sets the option `name`. Fails if there is no such option, or if its value is invalid.
    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let wrong = |allowed: &str| Error(format!("liboptimize: option {name} is {value:?}; it may be {allowed}"));
        match name {
            "precision" => {
                self.precision = match value {
                    "fp32" => Precision::Float32,
                    "bf16" => Precision::Bfloat16,
                    "int8" => Precision::Int8,
                    _ => return Err(wrong("fp32, bf16 or int8")),
                }
            }
            "threads" => {
                let threads = value.parse().ok().filter(|threads| (1..=1024).contains(threads));
                self.threads = threads.ok_or_else(|| wrong("1 to 1024"))?;
            }
            "claim" => {
                let kind =
                    |name: &str| Kind::from_name(name).ok_or_else(|| wrong("a list of kinds, as attention,norm"));
                let kinds = value.split(',').filter(|name| !name.is_empty()).map(kind).collect::<Result<_>>()?;
                self.claim = Some(kinds);
            }
            _ => {
                return Err(
                    format!("liboptimize: there is no option {name}; there are precision, threads, claim").into()
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(entries: &[(&str, &str)]) -> Result<Options> {
        let owned: Vec<_> = entries.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        Options::parse(&owned)
    }

    #[test]
    fn options_come_from_the_entries_of_the_session() {
        let options = parse(&[
            ("session.intra_op.allow_spinning", "1"),
            ("ep.optimizeexecutionprovider.precision", "bf16"),
            ("ep.optimizeexecutionprovider.threads", "3"),
            ("ep.optimizeexecutionprovider.claim", "norm,attention"),
            ("ep.other.precision", "nonsense"),
        ])
        .unwrap();
        assert_eq!((options.precision, options.threads, options.given), (Precision::Bfloat16, 3, true));
        assert!(!parse(&[("session.intra_op.allow_spinning", "1")]).unwrap().given);
        assert_eq!(options.claim.as_deref(), Some(&[Kind::Norm, Kind::Attention][..]));
        assert_eq!(options.compile_to, None);
    }

    #[test]
    fn a_wrong_option_is_named_with_what_it_may_be() {
        let prefix = "ep.optimizeexecutionprovider.precision";
        assert!(parse(&[(prefix, "int7")]).unwrap_err().0.contains("fp32, bf16 or int8"));
        assert!(parse(&[("ep.optimizeexecutionprovider.speed", "1")]).unwrap_err().0.contains("no option speed"));
        assert!(parse(&[("ep.optimizeexecutionprovider.threads", "0")]).unwrap_err().0.contains("1 to 1024"));
    }

    #[test]
    fn a_model_is_compiled_to_where_the_session_says() {
        let options = parse(&[("ep.context_enable", "1"), ("ep.context_file_path", "/tmp/a.onnx")]).unwrap();
        assert_eq!(options.compile_to, Some(PathBuf::from("/tmp/a.onnx")));
        assert_eq!(parse(&[("ep.context_enable", "1")]).unwrap().compile_to, Some(PathBuf::new()));
    }
}
